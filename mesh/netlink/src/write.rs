//! Steps as nf_tables messages, elements packed many to a message.

use covey_mesh::{
    Expression, Rule,
    object::{Change, Family, Form, Hook, Step, TABLE, Value},
};

use crate::{attribute::Attributes, nft::number_of, socket::Request};

/// The kernel's names for kinds of attributes (linux/netfilter/nf_tables.h), as far as we use them.
pub mod attr {
    pub const TABLE: u16 = 1;
    pub const TABLE_FLAGS: u16 = 2;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const CHAIN_TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    pub const HOOK_DEVICE: u16 = 3;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const ELEMENT: u16 = 1;
    pub const EXPRESSION_NAME: u16 = 1;
    pub const EXPRESSION_DATA: u16 = 2;
    pub const SET_NAME: u16 = 2;
    pub const SET_FLAGS: u16 = 3;
    pub const SET_KEY_TYPE: u16 = 4;
    pub const SET_KEY_LENGTH: u16 = 5;
    pub const SET_VALUE_TYPE: u16 = 6;
    pub const SET_VALUE_LENGTH: u16 = 7;
    pub const SET_ID: u16 = 10;
    pub const ELEMENTS_SET: u16 = 2;
    pub const ELEMENTS: u16 = 3;
    pub const ELEMENT_KEY: u16 = 1;
    pub const ELEMENT_VALUE: u16 = 2;
    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
}

/// `NFT_DATA_VERDICT`: values are verdicts.
pub const VALUE_IS_VERDICT: u32 = libc::NFT_DATA_VERDICT;
/// `NFT_GOTO`.
pub const GOTO: i32 = libc::NFT_GOTO;

/// Most bytes of the elements in one message: one attribute holds them, whose length is of 16 bits.
const ELEMENTS_BYTES_MAX: usize = 60_000;

/// A message to nf_tables.
pub fn request(family: Family, message: i32, flags: i32, body: Attributes) -> Request {
    Request {
        kind: (libc::NFNL_SUBSYS_NFTABLES << 8 | message) as u16,
        flags: flags as u16,
        family: number_of(family),
        resource: 0,
        body: body.into_bytes(),
    }
}

/// Attributes that begin with our table.
pub fn in_table() -> Attributes {
    let mut body = Attributes::default();
    body.put_name(attr::TABLE, TABLE);
    body
}

/// The messages of all changes in this family, in order.
pub fn requests(family: Family, changes: &[Change]) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut elements: Option<Elements> = None;
    for (id, change) in (1..).zip(changes).filter(|(_, change)| change.family == family) {
        let (map, key, value) = match &change.step {
            Step::AddElement(map, key, value) => (map, key, Some(value)),
            Step::DeleteElement(map, key) => (map, key, None),
            step => {
                requests.extend(elements.take().map(Elements::into_request));
                push(&mut requests, family, step, id);
                continue;
            }
        };
        if elements.as_ref().is_none_or(|open| !open.takes(map, value.is_some())) {
            requests.extend(elements.take().map(Elements::into_request));
        }
        let open = elements.get_or_insert_with(|| Elements {
            family,
            map: map.clone(),
            added: value.is_some(),
            list: Attributes::default(),
        });
        element(&mut open.list, key, value);
    }
    requests.extend(elements.map(Elements::into_request));
    requests
}

/// Elements of one message.
struct Elements {
    family: Family,
    map: String,
    /// Or deleted.
    added: bool,
    list: Attributes,
}

impl Elements {
    fn takes(&self, map: &str, added: bool) -> bool {
        self.map == map && self.added == added && self.list.len() < ELEMENTS_BYTES_MAX
    }

    fn into_request(self) -> Request {
        let (message, flags) = match self.added {
            true => (libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE),
            false => (libc::NFT_MSG_DELSETELEM, 0),
        };
        request(self.family, message, flags, of_map(&self.map, self.list))
    }
}

/// Elements of one of our maps.
pub fn of_map(map: &str, list: Attributes) -> Attributes {
    let mut body = in_table();
    body.put_name(attr::ELEMENTS_SET, map);
    body.put(attr::ELEMENTS, &list.into_bytes());
    body
}

/// Adds one element.
pub fn element(list: &mut Attributes, key: &[u8], value: Option<&Value>) {
    list.nest(attr::ELEMENT, |element| {
        element.nest(attr::ELEMENT_KEY, |data| data.put(attr::DATA_VALUE, key));
        match value {
            Some(Value::Bytes(bytes)) => {
                element.nest(attr::ELEMENT_VALUE, |data| data.put(attr::DATA_VALUE, bytes));
            }
            Some(Value::Goto(chain)) => element.nest(attr::ELEMENT_VALUE, |data| {
                data.nest(attr::DATA_VERDICT, |verdict| {
                    verdict.put(attr::VERDICT_CODE, &GOTO.to_be_bytes());
                    verdict.put_name(attr::VERDICT_CHAIN, chain);
                });
            }),
            // Nobody plans a foreign value.
            Some(Value::Member | Value::Foreign) | None => {}
        }
    });
}

fn push(requests: &mut Vec<Request>, family: Family, step: &Step, id: u32) {
    let mut add = |message, flags, body| requests.push(request(family, message, flags, body));
    match step {
        Step::AddTable => add(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, in_table()),
        Step::DeleteTable => add(libc::NFT_MSG_DELTABLE, 0, in_table()),
        Step::AddChain(name, hook) => {
            add(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, chain(name, hook.as_ref()));
        }
        Step::DeleteChain(name) => add(libc::NFT_MSG_DELCHAIN, 0, chain(name, None)),
        Step::SetRules(chain, rules) => {
            add(libc::NFT_MSG_DELRULE, 0, rule(chain, None));
            for one in rules {
                let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
                add(libc::NFT_MSG_NEWRULE, flags, rule(chain, Some(one)));
            }
        }
        Step::AddMap(name, form) => {
            add(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, map(name, Some((form, id))));
        }
        Step::DeleteMap(name) => add(libc::NFT_MSG_DELSET, 0, map(name, None)),
        // Packed, not pushed.
        Step::AddElement(..) | Step::DeleteElement(..) => {}
    }
}

fn chain(name: &str, hook: Option<&Hook>) -> Attributes {
    let mut body = in_table();
    body.put_name(attr::CHAIN_NAME, name);
    if let Some(hook) = hook {
        body.nest(attr::CHAIN_HOOK, |inside| {
            inside.put_number(attr::HOOK_NUMBER, hook.number);
            inside.put(attr::HOOK_PRIORITY, &hook.priority.to_be_bytes());
            if let Some(device) = &hook.device {
                inside.put_name(attr::HOOK_DEVICE, device);
            }
        });
        let policy = if hook.accepts { libc::NF_ACCEPT } else { libc::NF_DROP };
        body.put_number(attr::CHAIN_POLICY, policy as u32);
        body.put_name(attr::CHAIN_TYPE, &hook.kind);
    }
    body
}

/// One rule, or all of a chain.
fn rule(chain: &str, rule: Option<&Rule>) -> Attributes {
    let mut body = in_table();
    body.put_name(attr::RULE_CHAIN, chain);
    if let Some(rule) = rule {
        body.nest(attr::RULE_EXPRESSIONS, |list| rule.iter().for_each(|one| expression(list, one)));
    }
    body
}

fn expression(list: &mut Attributes, expression: &Expression) {
    list.nest(attr::ELEMENT, |inside| {
        inside.put_name(attr::EXPRESSION_NAME, &expression.name);
        inside.nest(attr::EXPRESSION_DATA, |data| {
            for (number, value) in &expression.attributes {
                data.put(*number, value);
            }
        });
    });
}

fn map(name: &str, form: Option<(&Form, u32)>) -> Attributes {
    let mut body = in_table();
    body.put_name(attr::SET_NAME, name);
    if let Some((form, id)) = form {
        body.put_number(attr::SET_FLAGS, form.flags);
        body.put_number(attr::SET_KEY_TYPE, form.key.kind);
        body.put_number(attr::SET_KEY_LENGTH, form.key.length);
        if form.leads_to_chains() {
            body.put_number(attr::SET_VALUE_TYPE, VALUE_IS_VERDICT);
        } else if let Some(value) = form.value {
            body.put_number(attr::SET_VALUE_TYPE, value.kind);
            body.put_number(attr::SET_VALUE_LENGTH, value.length);
        }
        body.put_number(attr::SET_ID, id);
    }
    body
}
