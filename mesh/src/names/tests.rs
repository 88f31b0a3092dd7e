//! Every rule about names, one by one.

use std::net::IpAddr;

use super::*;

/// A zone named `shop`, and what one asks of it.
struct Lab(Zone);

impl Lab {
    fn new() -> Self {
        Self(Zone::new("Shop"))
    }

    fn set(&mut self, key: &str, member: Member) {
        self.0.set(key, Some(member));
    }

    fn ask(&self, name: &str, kind: Kind) -> Answer {
        self.0.answer(&Question::new(name, kind), 0)
    }

    /// IPv4 addresses, in the order of the first turn.
    fn v4(&self, name: &str) -> Answer {
        self.ask(name, Kind::V4)
    }
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn addresses(addresses: &[&str]) -> Answer {
    Answer::Records(ips(addresses).into_iter().map(Record::Address).collect())
}

fn pointer(name: &str) -> Answer {
    Answer::Records(vec![Record::Pointer(name.to_owned())])
}

fn port(port: u16, target: &str, addresses: &[&str]) -> Record {
    Record::Service { port, target: target.to_owned(), addresses: ips(addresses) }
}

/// Task `number` of service `web`, at 10.0.1.`number`, with one virtual address.
fn web(number: u8) -> Member {
    Member {
        addresses: ips(&[&format!("10.0.1.{number}")]),
        own: names(&[&format!("web.{number}.x7z"), &format!("57e612f35a{number:02}")]),
        services: names(&["web", "www", "web.stack"]),
        vips: ips(&["10.0.0.5"]),
        ports: vec![
            Port { name: "http".into(), protocol: Protocol::Tcp, port: 80 },
            Port { name: String::new(), protocol: Protocol::Udp, port: 443 },
        ],
        active: true,
        version: 7,
    }
}

/// The same with endpoint mode `dnsrr`.
fn rr(number: u8) -> Member {
    Member { vips: Vec::new(), ..web(number) }
}

fn idle(member: Member) -> Member {
    Member { active: false, ..member }
}

/// LB-01, LB-03
#[test]
fn a_service_and_each_of_its_aliases_have_its_virtual_address() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    lab.set("b", web(2));
    for name in ["web", "WEB", "web.", "www", "web.stack", "Web.Stack.Shop.", "web.shop"] {
        assert_eq!(lab.v4(name), addresses(&["10.0.0.5"]), "{name}");
    }
}

/// LB-01
#[test]
fn a_service_keeps_its_virtual_address_while_no_task_is_active_or_there_at_all() {
    let mut lab = Lab::new();
    lab.set("a", idle(web(1)));
    assert_eq!(lab.v4("web"), addresses(&["10.0.0.5"]));
    assert_eq!(lab.v4("tasks.web"), Answer::Unavailable);
    lab.set("web", idle(Member { addresses: vec![], own: vec![], ..web(1) }));
    lab.0.set("a", None);
    assert_eq!(lab.v4("www"), addresses(&["10.0.0.5"]));
    assert_eq!(lab.v4("tasks.www"), Answer::Unavailable);
    lab.0.set("web", None);
    assert_eq!(lab.v4("www"), Answer::Unknown);
}

/// LB-05, LB-07
#[test]
fn without_a_virtual_address_a_service_is_all_of_its_active_tasks() {
    let mut lab = Lab::new();
    lab.set("a", rr(1));
    lab.set("b", rr(2));
    lab.set("c", idle(rr(3)));
    assert_eq!(lab.v4("web"), addresses(&["10.0.1.1", "10.0.1.2"]));
    lab.set("a", idle(rr(1)));
    lab.set("c", rr(3));
    assert_eq!(lab.v4("www"), addresses(&["10.0.1.2", "10.0.1.3"]));
    lab.0.set("b", None);
    lab.set("c", idle(rr(3)));
    assert_eq!(lab.v4("web"), Answer::Unavailable, "a failure that passes, not the lack of a name");
}

/// LB-01, LB-07
#[test]
fn tasks_of_a_service_are_its_active_tasks_under_each_of_its_names() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    lab.set("b", web(2));
    lab.set("c", idle(web(3)));
    for name in ["tasks.web", "Tasks.WWW.", "tasks.web.stack", "tasks.web.shop"] {
        assert_eq!(lab.v4(name), addresses(&["10.0.1.1", "10.0.1.2"]), "{name}");
    }
    assert_eq!(lab.v4("tasks.nobody"), Answer::Unknown);
}

/// NET-26
#[test]
fn a_container_is_reached_by_its_name_and_its_id() {
    let mut lab = Lab::new();
    lab.set("a", web(7));
    lab.set("b", web(8));
    lab.set("c", Member { addresses: ips(&["10.0.1.9"]), own: names(&["db", "store"]), ..Member::default() });
    for (name, address) in [
        ("57e612f35a07", "10.0.1.7"),
        ("web.8.x7z", "10.0.1.8"),
        ("web.8.x7z.shop", "10.0.1.8"),
        ("db", "10.0.1.9"),
        ("store.shop", "10.0.1.9"),
    ] {
        assert_eq!(lab.v4(name), addresses(&[address]), "{name}");
    }
}

#[test]
fn a_container_keeps_its_own_name_while_it_is_not_active_unless_an_active_one_bears_it_too() {
    let mut lab = Lab::new();
    let named = |number| Member { own: names(&["db-1"]), services: names(&["db"]), ..rr(number) };
    lab.set("old", idle(named(1)));
    assert_eq!(lab.v4("db-1"), addresses(&["10.0.1.1"]));
    assert_eq!(lab.v4("db"), Answer::Unavailable);
    lab.set("new", named(2));
    assert_eq!(lab.v4("db-1"), addresses(&["10.0.1.2"]));
}

#[test]
fn a_container_named_like_a_service_does_not_capture_its_name() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    lab.set(
        "b",
        Member { addresses: ips(&["10.0.1.9"]), own: names(&["web"]), active: true, ..Member::default() },
    );
    assert_eq!(lab.v4("web"), addresses(&["10.0.0.5"]));
    lab.0.set("a", None);
    assert_eq!(lab.v4("web"), addresses(&["10.0.1.9"]));
}

/// LB-01
#[test]
fn an_alias_may_have_dots_and_captures_no_name_of_the_network() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    let other = names(&["db", "db.example.com", "web.shop", "x.shop"]);
    lab.set("b", Member { services: other, vips: ips(&["10.0.0.6"]), ..web(2) });
    for (name, address) in [
        ("db.example.com", "10.0.0.6"),
        ("DB.Example.com.shop.", "10.0.0.6"),
        ("x.shop", "10.0.0.6"),
        ("web.shop.shop", "10.0.0.6"),
        ("web.shop", "10.0.0.5"),
    ] {
        assert_eq!(lab.v4(name), addresses(&[address]), "{name}");
    }
    assert_eq!(lab.v4("tasks.db.example.com"), addresses(&["10.0.1.2"]));
    assert_eq!(lab.v4("example.com"), Answer::Unknown);
}

#[test]
fn an_alias_of_two_services_has_the_addresses_of_both() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    let other = Member { services: names(&["shop-b", "www"]), vips: ips(&["10.0.0.6"]), ..web(2) };
    lab.set("b", other.clone());
    assert_eq!(lab.v4("www"), addresses(&["10.0.0.5", "10.0.0.6"]));
    lab.set("b", Member { vips: vec![], ..other });
    assert_eq!(lab.v4("www"), addresses(&["10.0.0.5", "10.0.1.2"]));
}

#[test]
fn the_member_with_the_highest_version_says_what_its_service_is() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    let newer = Member { services: names(&["web", "new"]), vips: ips(&["10.0.0.9"]), version: 8, ..web(2) };
    lab.set("b", newer.clone());
    assert_eq!(lab.v4("web"), addresses(&["10.0.0.9"]));
    assert_eq!(lab.v4("new"), addresses(&["10.0.0.9"]));
    assert_eq!(lab.v4("www"), Answer::Unknown, "an alias of the past");
    assert_eq!(lab.v4("tasks.new"), addresses(&["10.0.1.1", "10.0.1.2"]), "tasks of both versions");
    assert_eq!(lab.ask("5.0.0.10.in-addr.arpa", Kind::Pointer), Answer::Unknown);
    lab.set("b", Member { vips: vec![], ..newer });
    assert_eq!(lab.v4("web"), addresses(&["10.0.1.1", "10.0.1.2"]), "now by round robin");
    lab.0.set("b", None);
    assert_eq!(lab.v4("www"), addresses(&["10.0.0.5"]), "back to what is left");
    assert_eq!(lab.v4("new"), Answer::Unknown);
}

/// NET-34
#[test]
fn a_name_without_addresses_of_the_family_asked_for_exists() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    for name in ["web", "tasks.web", "web.1.x7z"] {
        assert_eq!(lab.ask(name, Kind::V6), Answer::NoData, "{name}");
        assert_eq!(lab.ask(name, Kind::Other), Answer::NoData, "{name}");
        assert_eq!(lab.ask(name, Kind::Pointer), Answer::NoData, "{name}");
    }
    lab.set("b", Member { addresses: ips(&["10.0.1.2", "fd00::2"]), ..web(2) });
    assert_eq!(lab.ask("tasks.web", Kind::V6), addresses(&["fd00::2"]));
    assert_eq!(lab.v4("tasks.web"), addresses(&["10.0.1.1", "10.0.1.2"]));
}

#[test]
fn what_nobody_here_is_called_is_unknown() {
    let mut lab = Lab::new();
    lab.set("a", Member { own: names(&["", "."]), services: names(&["", "web"]), ..web(1) });
    for name in
        ["", ".", "shop", "nobody", "nobody.shop", "web.other", "webshop", "tasks.", "tasks", "_.", "_._."]
    {
        for kind in [Kind::V4, Kind::V6, Kind::Pointer, Kind::Service, Kind::Other] {
            assert_eq!(lab.ask(name, kind), Answer::Unknown, "{name} {kind:?}");
        }
    }
    assert_eq!(lab.v4("web"), addresses(&["10.0.0.5"]));
}

/// LB-05
/// LB-01
#[test]
fn what_is_not_known_before_all_is_told_may_be_told_yet() {
    let (mut early, mut other) = (Zone::new("early"), Zone::new("other"));
    early.set_whole(false);
    early.set("a", Some(web(1)));
    other.set("b", Some(Member { own: names(&["db"]), ..idle(Member::default()) }));
    let ask = |zones: &[&Zone], name: &str| {
        let view = View { host: "me", addresses: &ips(&["10.0.1.7"]), zones: zones.to_vec() };
        view.answer(&Question::new(name, Kind::V4), 0)
    };
    assert_eq!(ask(&[&early], "web"), addresses(&["10.0.0.5"]), "what is known is no matter of time");
    for name in ["nobody", "_http._tcp.nobody", "9.1.0.10.in-addr.arpa"] {
        assert_eq!(ask(&[&early], name), Answer::Unheard, "{name}");
        assert_eq!(ask(&[&other, &early], name), Answer::Unheard, "{name}");
        assert_eq!(ask(&[&early, &other], name), Answer::Unheard, "{name}");
    }
    assert_eq!(ask(&[&early, &other], "db"), Answer::Unavailable);
    assert_eq!(ask(&[&early], "me"), addresses(&["10.0.1.7"]));
    early.set_whole(true);
    assert_eq!(ask(&[&early, &other], "nobody"), Answer::Unknown);
}

#[test]
fn another_address_comes_first_each_turn() {
    let mut lab = Lab::new();
    for number in 1..=3 {
        lab.set(&number.to_string(), rr(number));
    }
    let question = Question::new("web", Kind::V4);
    let turn = |turn| lab.0.answer(&question, turn);
    assert_eq!(turn(1), addresses(&["10.0.1.2", "10.0.1.3", "10.0.1.1"]));
    assert_eq!(turn(2), addresses(&["10.0.1.3", "10.0.1.1", "10.0.1.2"]));
    assert_eq!(turn(3), turn(0));
    assert_eq!(turn(u64::MAX), turn(u64::MAX % 3));
}

#[test]
fn an_answer_is_bounded_and_each_task_has_its_turn() {
    let mut lab = Lab::new();
    for number in 0..RECORDS_MAX as u32 + 1 {
        let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
        lab.set(&number.to_string(), Member { addresses: vec![address], ..rr(1) });
    }
    let question = Question::new("web", Kind::V4);
    for (turn, left_out) in [(0, "10.0.8.0"), (1, "10.0.0.0")] {
        let Answer::Records(found) = lab.0.answer(&question, turn) else { panic!("no records") };
        assert_eq!(found.len(), RECORDS_MAX);
        assert!(!found.contains(&Record::Address(left_out.parse().unwrap())), "{left_out}");
    }
}

#[test]
fn an_address_has_the_name_of_its_container_and_a_virtual_one_that_of_its_service() {
    let mut lab = Lab::new();
    lab.set("a", Member { addresses: ips(&["10.0.1.1", "fd00::1:2"]), ..web(1) });
    let v6 = "2.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.F.ip6.arpa";
    for (name, found) in [
        ("1.1.0.10.in-addr.arpa", pointer("web.1.x7z.shop")),
        ("1.1.0.10.IN-ADDR.ARPA.", pointer("web.1.x7z.shop")),
        (v6, pointer("web.1.x7z.shop")),
        ("5.0.0.10.in-addr.arpa", pointer("web.shop")),
        ("2.1.0.10.in-addr.arpa", Answer::Unknown),
        ("1.0.10.in-addr.arpa", Answer::Unknown),
        ("0.1.1.0.10.in-addr.arpa", Answer::Unknown),
        ("01.1.0.10.in-addr.arpa", Answer::Unknown),
        ("+1.1.0.10.in-addr.arpa", Answer::Unknown),
        ("257.1.0.10.in-addr.arpa", Answer::Unknown),
        ("in-addr.arpa", Answer::Unknown),
        (&v6[2..], Answer::Unknown),
        (&v6.replace('D', "1d"), Answer::Unknown),
    ] {
        assert_eq!(lab.ask(name, Kind::Pointer), found, "{name}");
    }
    assert_eq!(lab.v4("5.0.0.10.in-addr.arpa"), Answer::NoData);
    lab.set("b", idle(Member { own: names(&["gone"]), ..web(1) }));
    assert_eq!(lab.ask("1.1.0.10.in-addr.arpa", Kind::Pointer), pointer("web.1.x7z.shop"));
    lab.0.set("a", None);
    assert_eq!(lab.ask("1.1.0.10.in-addr.arpa", Kind::Pointer), pointer("gone.shop"));
}

#[test]
fn ports_are_found_by_name_and_all_together() {
    let mut lab = Lab::new();
    lab.set("a", web(1));
    lab.set("b", web(2));
    lab.set("c", idle(web(3)));
    let ask = |name| lab.ask(name, Kind::Service);
    let (http, tasks) = (
        port(80, "web.shop", &["10.0.0.5"]),
        [port(80, "web.1.x7z.shop", &["10.0.1.1"]), port(80, "web.2.x7z.shop", &["10.0.1.2"])],
    );
    assert_eq!(ask("_http._tcp.web"), Answer::Records(vec![http.clone()]));
    assert_eq!(ask("_HTTP._TCP.www.shop."), Answer::Records(vec![http.clone()]));
    assert_eq!(ask("_http._tcp.tasks.web"), Answer::Records(tasks.to_vec()));
    assert_eq!(ask("web"), Answer::Records(vec![http, port(443, "web.shop", &["10.0.0.5"])]));
    for name in ["_http._udp.web", "_other._tcp.web", "_._udp.web", "web.1.x7z"] {
        assert_eq!(ask(name), Answer::NoData, "{name}");
    }
    assert_eq!(lab.v4("_http._tcp.web"), Answer::NoData);
    assert_eq!(ask("_http._tcp.nobody"), Answer::Unknown);

    let mut lab = Lab::new();
    lab.set("a", rr(1));
    assert_eq!(lab.ask("_http._tcp.web", Kind::Service), Answer::Records(tasks[..1].to_vec()));
    assert_eq!(lab.v4("web.1.x7z.shop"), addresses(&["10.0.1.1"]), "a target has an address");
    lab.set("a", idle(rr(1)));
    assert_eq!(lab.ask("_http._tcp.web", Kind::Service), Answer::Unavailable);
}

/// LB-01, NET-18
#[test]
fn a_container_sees_its_own_networks_in_order_and_no_other() {
    let (mut first, mut second) = (Lab::new(), Lab(Zone::new("other")));
    first.set("a", idle(rr(1)));
    second.set("b", Member { vips: ips(&["10.9.0.1"]), ..web(9) });
    second.set("c", Member { services: names(&["db"]), ..rr(4) });
    let ask = |labs: &[&Lab], name, kind| {
        let zones = labs.iter().map(|lab| &lab.0).collect();
        View { host: "box", addresses: &[], zones }.answer(&Question::new(name, kind), 0)
    };
    let both = [&first, &second];
    assert_eq!(ask(&both, "web", Kind::V4), addresses(&["10.9.0.1"]), "the first has none");
    assert_eq!(ask(&both, "web", Kind::V6), Answer::Unavailable, "neither has any");
    assert_eq!(ask(&[&first], "web", Kind::V4), Answer::Unavailable);
    assert_eq!(ask(&[&first], "db", Kind::V4), Answer::Unknown);
    first.set("a", rr(1));
    let both = [&first, &second];
    assert_eq!(ask(&both, "web", Kind::V4), addresses(&["10.0.1.1"]));
    assert_eq!(ask(&both, "web.other", Kind::V4), addresses(&["10.9.0.1"]));
    assert_eq!(ask(&both, "db", Kind::V4), addresses(&["10.0.1.4"]));
    assert_eq!(ask(&both, "nobody", Kind::V4), Answer::Unknown);
}

/// NET-26
#[test]
fn a_container_knows_its_own_host_name_without_any_network() {
    let own = ips(&["10.0.1.1", "fd00::1"]);
    let view = View { host: "Box", addresses: &own, zones: Vec::new() };
    let ask = |name, kind| view.answer(&Question::new(name, kind), 0);
    assert_eq!(ask("box.", Kind::V4), addresses(&["10.0.1.1"]));
    assert_eq!(ask("BOX", Kind::V6), addresses(&["fd00::1"]));
    assert_eq!(ask("box", Kind::Service), Answer::NoData);
    assert_eq!(ask("other", Kind::V4), Answer::Unknown);
    let nameless = View { host: "", ..view };
    assert_eq!(nameless.answer(&Question::new(".", Kind::V4), 0), Answer::Unknown);
}

/// Whatever rows come in whatever order, what was changed row by row is what would have been built at once.
#[test]
fn a_zone_changed_row_by_row_is_the_zone_built_at_once() {
    // A small generator of our own: the same numbers every time (Numerical Recipes, "quick and dirty").
    let mut state = 1u32;
    let mut pick = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    let mut changed = Zone::new("shop");
    let mut rows = std::collections::BTreeMap::new();
    for step in 0..3000 {
        let (key, name) = (pick(6).to_string(), ["web", "db", "www"]);
        let services = (0..pick(3)).map(|_| name[pick(3) as usize].to_owned()).collect();
        let member = (pick(4) > 0).then(|| Member {
            addresses: ips(&[&format!("10.0.1.{}", pick(3))]),
            services,
            vips: if pick(2) == 0 { vec![] } else { ips(&[&format!("10.0.0.{}", pick(3))]) },
            active: pick(2) == 0,
            version: pick(3).into(),
            ..web(pick(3) as u8)
        });
        changed.set(&key, member.clone());
        match member {
            Some(member) => rows.insert(key, member),
            None => rows.remove(&key),
        };
        let mut built = Zone::new("shop");
        rows.iter().for_each(|(key, member)| built.set(key, Some(member.clone())));
        assert_eq!(format!("{changed:?}"), format!("{built:?}"), "step {step}");
    }
}
