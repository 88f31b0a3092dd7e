//! nf_tables messages as what our tables hold.

use covey_mesh::{
    Expression, Rule,
    object::{Form, Hook, TABLE, Type, Value},
};

use crate::{
    attribute::{attributes, find, find_name, find_number},
    write::{GOTO, VALUE_IS_VERDICT, attr},
};

/// Whether this is about our table.
pub fn is_ours(body: &[u8]) -> bool {
    find_name(body, attr::TABLE).as_deref() == Some(TABLE)
}

/// The name and the hook of a chain.
pub fn chain(body: &[u8]) -> Option<(String, Option<Hook>)> {
    let name = find_name(body, attr::CHAIN_NAME)?;
    let hook = find(body, attr::CHAIN_HOOK).map(|hook| Hook {
        kind: find_name(body, attr::CHAIN_TYPE).unwrap_or_default(),
        number: find_number(hook, attr::HOOK_NUMBER),
        priority: find_number(hook, attr::HOOK_PRIORITY).cast_signed(),
        device: find_name(hook, attr::HOOK_DEVICE),
        accepts: find_number(body, attr::CHAIN_POLICY) == libc::NF_ACCEPT as u32,
    });
    Some((name, hook))
}

/// The chain of a rule, and the rule.
pub fn rule(body: &[u8]) -> Option<(String, Rule)> {
    let chain = find_name(body, attr::RULE_CHAIN)?;
    let list = find(body, attr::RULE_EXPRESSIONS).unwrap_or_default();
    Some((chain, attributes(list).map(|(_, one)| expression(one)).collect()))
}

fn expression(body: &[u8]) -> Expression {
    let data = find(body, attr::EXPRESSION_DATA).unwrap_or_default();
    Expression {
        name: find_name(body, attr::EXPRESSION_NAME).unwrap_or_default(),
        attributes: attributes(data).map(|(number, value)| (number, value.to_vec())).collect(),
    }
}

/// The name and the form of a map.
pub fn map(body: &[u8]) -> Option<(String, Form)> {
    let of = |kind, length| Type { kind: find_number(body, kind), length: find_number(body, length) };
    let value = of(attr::SET_VALUE_TYPE, attr::SET_VALUE_LENGTH);
    let form = Form {
        flags: find_number(body, attr::SET_FLAGS),
        key: of(attr::SET_KEY_TYPE, attr::SET_KEY_LENGTH),
        // A set has neither; verdicts have no length of their own.
        value: (value.kind != VALUE_IS_VERDICT && value.length != 0).then_some(value),
    };
    Some((find_name(body, attr::SET_NAME)?, form))
}

/// Keys and values in one message.
pub fn elements(body: &[u8]) -> impl Iterator<Item = (Vec<u8>, Value)> {
    attributes(find(body, attr::ELEMENTS).unwrap_or_default()).filter_map(|(_, element)| {
        let key = find(find(element, attr::ELEMENT_KEY)?, attr::DATA_VALUE)?;
        Some((key.to_vec(), value(element)))
    })
}

fn value(element: &[u8]) -> Value {
    if attributes(element).any(|(number, _)| !matches!(number, attr::ELEMENT_KEY | attr::ELEMENT_VALUE)) {
        return Value::Foreign;
    }
    let Some(data) = find(element, attr::ELEMENT_VALUE) else { return Value::Member };
    if let Some(bytes) = find(data, attr::DATA_VALUE) {
        return Value::Bytes(bytes.to_vec());
    }
    let verdict = find(data, attr::DATA_VERDICT).unwrap_or_default();
    match find_name(verdict, attr::VERDICT_CHAIN) {
        Some(chain) if find_number(verdict, attr::VERDICT_CODE) == GOTO.cast_unsigned() => Value::Goto(chain),
        _ => Value::Foreign,
    }
}
