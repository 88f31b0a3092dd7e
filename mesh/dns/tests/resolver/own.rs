//! Names of the container's networks, and the way to the resolver.

use std::io::{Read, Write};

use covey_mesh::{
    Protocol,
    names::{Member, Port},
};
use covey_mesh_dns::{Outside, Sockets, SocketsError};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, RecordType},
};

use crate::lab::{
    Lab, RESOLVER, addresses, answers, code, query, query_with_room, read_framed, receive, receive_from,
    receive_raw, web, write_framed,
};

/// LB-01, LB-03, NET-26
#[test]
fn a_container_finds_services_tasks_and_itself_over_udp_and_tcp() {
    let Some(lab) = Lab::new() else { return };
    lab.set("a", web("10.0.1.1", &["10.0.0.5"]));
    lab.set("b", web("fd00::2", &["10.0.0.5"]));
    for (name, kind, found) in [
        ("WEB.", RecordType::A, "10.0.0.5"),
        ("tasks.web.shop.", RecordType::A, "10.0.1.1"),
        ("tasks.web.", RecordType::AAAA, "fd00::2"),
        ("web.10-0-1-1.", RecordType::A, "10.0.1.1"),
        ("57e612f35a38.", RecordType::A, "10.0.1.7"),
    ] {
        let asked = query(name, kind);
        for answer in [lab.ask_all(&asked), lab.ask_tcp(&asked)] {
            assert_eq!(addresses(&answer), [found], "{name}");
            assert_eq!(code(&answer), ResponseCode::NoError);
            assert_eq!((answer.metadata.id, &answer.queries), (asked.metadata.id, &asked.queries));
            assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
            assert!(answer.answers.iter().all(|record| record.ttl == 1 && record.name.to_string() == name));
        }
    }
    let none = lab.ask("web", RecordType::AAAA);
    assert_eq!((code(&none), none.answers.len()), (ResponseCode::NoError, 0), "no address of that family");
    assert!(none.authorities.is_empty(), "nobody may keep that there is none");
}

#[test]
fn addresses_have_names_and_ports_have_targets() {
    let Some(lab) = Lab::new() else { return };
    let ports = vec![Port { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }];
    lab.set("a", Member { ports, ..web("10.0.1.1", &[]) });
    let named = lab.ask("1.1.0.10.in-addr.arpa", RecordType::PTR);
    let name = Name::from_ascii("web.10-0-1-1.shop.").unwrap();
    let [RData::PTR(pointer)] = &answers(&named)[..] else { panic!("{named:?}") };
    assert_eq!(pointer.0, name);
    let ports = lab.ask("_http._tcp.web", RecordType::SRV);
    let [RData::SRV(port)] = &answers(&ports)[..] else { panic!("{ports:?}") };
    assert_eq!((port.port, &port.target), (8080, &name));
    assert_eq!(ports.additionals[0].name, name);
    assert_eq!(ports.additionals[0].data.ip_addr(), Some("10.0.1.1".parse().unwrap()));
}

/// LB-05, LB-07
#[test]
fn answers_follow_the_tasks_and_take_turns() {
    let Some(lab) = Lab::new() else { return };
    assert_eq!(code(&lab.ask("web", RecordType::A)), ResponseCode::NXDomain);
    for number in 1..=3 {
        lab.set(&number.to_string(), web(&format!("10.0.1.{number}"), &[]));
    }
    let turns: Vec<_> = (0..4).map(|_| addresses(&lab.ask("web", RecordType::A))).collect();
    let firsts: std::collections::BTreeSet<_> = turns.iter().map(|turn| turn[0].clone()).collect();
    assert_eq!(firsts.len(), 3, "{turns:?}");
    assert_eq!(turns[0], turns[3]);
    for number in 1..=3 {
        lab.set(&number.to_string(), Member { active: false, ..web(&format!("10.0.1.{number}"), &[]) });
        let answer = lab.ask("web", RecordType::A);
        assert_eq!(answer.answers.len(), 3 - number);
        let expected = if number < 3 { ResponseCode::NoError } else { ResponseCode::ServFail };
        assert_eq!(code(&answer), expected, "a client is to try again");
    }
}

/// NET-24
#[test]
fn names_outside_do_not_exist_where_there_is_no_outside_and_fail_where_nobody_knows_them() {
    let Some(lab) = Lab::new() else { return };
    lab.set("a", web("10.0.1.1", &[]));
    for asked in [query("google.com", RecordType::A), query("google.com", RecordType::AAAA)] {
        assert_eq!(code(&lab.ask_all(&asked)), ResponseCode::NXDomain);
        assert_eq!(code(&lab.ask_tcp(&asked)), ResponseCode::NXDomain);
    }
    lab.scope.send_modify(|scope| scope.outside = Outside::Servers(Vec::new()));
    assert_eq!(code(&lab.ask("google.com", RecordType::A)), ResponseCode::ServFail);
    assert_eq!(addresses(&lab.ask("web", RecordType::A)), ["10.0.1.1"]);
}

/// A DNS server as the task, at the port where the resolver is found.
#[test]
fn a_task_may_have_port_53_of_every_address() {
    for (bound, reached) in [("0.0.0.0:53", "127.0.0.1:53"), ("[::]:53", "[::1]:53")] {
        let Some(lab) = Lab::new() else { return };
        lab.set("a", web("10.0.1.1", &[]));
        let (udp, tcp) = (lab.udp("container", bound), lab.listener("container", bound));

        let stranger = lab.udp("container", if bound.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" });
        stranger.send_to(b"to the task", reached).unwrap();
        let (bytes, client) = receive_raw(&udp);
        assert_eq!(bytes, b"to the task");
        udp.send_to(b"from the task", client).unwrap();
        assert_eq!(receive_raw(&stranger), (b"from the task".to_vec(), reached.parse().unwrap()));

        let mut stream = lab.connect(reached).unwrap();
        stream.write_all(b"to the task").unwrap();
        let (mut accepted, _) = tcp.accept().unwrap();
        let mut bytes = [0; 11];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"to the task");

        let asked = query("web", RecordType::A);
        assert_eq!(addresses(&lab.ask_all(&asked)), ["10.0.1.1"], "beside {bound}");
        assert_eq!(addresses(&lab.ask_tcp(&asked)), ["10.0.1.1"], "beside {bound}");
    }
}

#[test]
fn an_answer_comes_from_where_the_question_went() {
    let Some(lab) = Lab::new() else { return };
    for from in ["0.0.0.0:0", "127.0.0.1:0", "127.0.0.11:0"] {
        let client = lab.udp("container", from);
        client.send_to(&query("web", RecordType::A).to_vec().unwrap(), RESOLVER).unwrap();
        assert_eq!(receive_raw(&client).1, RESOLVER.parse().unwrap());
    }
}

#[test]
fn what_does_not_fit_is_cut_and_comes_whole_over_tcp() {
    let Some(lab) = Lab::new() else { return };
    for number in 0..200 {
        lab.set(&number.to_string(), web(&format!("10.0.2.{number}"), &[]));
    }
    // 12 bytes of header, 9 of question, 16 for each record, and 11 for EDNS.
    for (asked, fits) in [
        (query("web", RecordType::A), (512 - 21) / 16),
        (query_with_room("web", RecordType::A, 100), (512 - 32) / 16),
        (query_with_room("web", RecordType::A, 1232), (1232 - 32) / 16),
    ] {
        let cut = lab.ask_all(&asked);
        assert_eq!((cut.answers.len(), cut.metadata.truncation), (fits, true));
        assert_eq!(cut.edns.is_some(), asked.edns.is_some());
    }
    for whole in [
        lab.ask_all(&query_with_room("web", RecordType::A, 4096)),
        lab.ask_tcp(&query("web", RecordType::A)),
        lab.ask_tcp(&query_with_room("web", RecordType::A, 512)),
    ] {
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
    }
}

#[test]
fn one_connection_carries_many_questions() {
    let Some(lab) = Lab::new() else { return };
    lab.set("a", web("10.0.1.1", &[]));
    let mut stream = lab.connect(RESOLVER).unwrap();
    let asked: Vec<_> = (0..5).map(|_| query("web", RecordType::A)).collect();
    asked.iter().for_each(|query| write_framed(&mut stream, &query.to_vec().unwrap()));
    for query in asked {
        let answer = read_framed(&mut stream).unwrap();
        assert_eq!(
            (answer.metadata.id, addresses(&answer)),
            (query.metadata.id, vec!["10.0.1.1".to_owned()])
        );
    }
}

#[test]
fn what_is_asked_while_the_daemon_restarts_is_answered_afterwards() {
    let Some(mut lab) = Lab::without_resolver() else { return };
    let sockets = Sockets::open(&lab.path("container")).unwrap();
    let (udp, tcp) = sockets.duplicate().unwrap();
    lab.start(sockets);
    lab.set("a", web("10.0.1.1", &[]));
    assert_eq!(addresses(&lab.ask("web", RecordType::A)), ["10.0.1.1"]);

    lab.stop();
    let asked: Vec<_> = (0..50).map(|_| (lab.client(), query("web", RecordType::A))).collect();
    for (client, query) in &asked {
        client.send(&query.to_vec().unwrap()).unwrap();
    }
    let mut stream = lab.connect(RESOLVER).unwrap();
    write_framed(&mut stream, &asked[0].1.to_vec().unwrap());

    lab.start(Sockets::from_fds(udp, tcp, &lab.path("container")).unwrap());
    for (client, query) in &asked {
        let answer = receive(client);
        assert_eq!(
            (answer.metadata.id, addresses(&answer)),
            (query.metadata.id, vec!["10.0.1.1".to_owned()])
        );
    }
    assert_eq!(addresses(&read_framed(&mut stream).unwrap()), ["10.0.1.1"]);
}

#[test]
fn nobody_listens_any_more_once_all_descriptors_are_closed() {
    let Some(mut lab) = Lab::new() else { return };
    lab.connect(RESOLVER).unwrap();
    lab.stop();
    let refused = lab.connect(RESOLVER).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn descriptors_of_something_else_are_refused() {
    let Some(lab) = Lab::without_resolver() else { return };
    let at = |address| (lab.udp("container", address).into(), lab.listener("container", address).into());
    let take = |udp, tcp| Sockets::from_fds(udp, tcp, &lab.path("container"));
    let (udp, tcp) = at("127.0.0.1:0");
    assert!(matches!(take(udp, tcp), Err(SocketsError::Foreign)));
    let (udp, tcp) = at("127.0.0.11:0");
    assert!(matches!(take(tcp, udp), Err(SocketsError::Foreign)), "one for the other");
    let (udp, tcp) = at("127.0.0.11:0");
    take(udp, tcp).unwrap();
    let file = || std::fs::File::open("/proc/self/cmdline").unwrap().into();
    assert!(matches!(take(file(), file()), Err(SocketsError::System(_))));
    assert!(matches!(Sockets::open(&lab.path("nowhere")), Err(SocketsError::System(_))));
}

#[test]
fn the_rule_is_one_table_of_ours_beside_those_of_others() {
    let Some(mut lab) = Lab::without_resolver() else { return };
    if lab.nft("add table inet others").is_none() {
        return;
    }
    let sockets = Sockets::open(&lab.path("container")).unwrap();
    assert_eq!(lab.nft("list ruleset").unwrap(), "table inet others {\n}\n", "nothing leads there yet");
    let ports = sockets.duplicate().map(|(udp, tcp)| {
        let (udp, tcp) = (std::net::UdpSocket::from(udp), std::net::TcpListener::from(tcp));
        (udp.local_addr().unwrap().port(), tcp.local_addr().unwrap().port())
    });
    let (udp, tcp) = ports.unwrap();
    lab.start(sockets);
    let expected = format!(
        "table inet others {{\n}}\n\
        table inet covey-dns {{\n\
        \tchain output {{\n\
        \t\ttype filter hook output priority raw; policy accept;\n\
        \t\toif != \"lo\" return\n\
        \t\tip daddr 127.0.0.11 udp dport 53 udp dport set {udp}\n\
        \t\tip saddr 127.0.0.11 udp sport {udp} udp sport set 53\n\
        \t\tip daddr 127.0.0.11 tcp dport 53 tcp dport set {tcp}\n\
        \t\tip saddr 127.0.0.11 tcp sport {tcp} tcp sport set 53\n\
        \t}}\n\
        }}\n"
    );
    assert_eq!(lab.nft("list ruleset").unwrap(), expected);
}

/// What a container does to its own rules is seen, and undone.
#[test]
fn a_rule_that_was_taken_away_or_altered_is_made_anew_and_counted() {
    let Some(lab) = Lab::new() else { return };
    let Some(rules) = lab.nft("list ruleset") else { return };
    lab.set("a", web("10.0.1.1", &[]));
    assert!(!lab.lead_here(), "nothing is amiss");
    let udp = "add rule inet covey-dns output ip daddr 127.0.0.11 udp dport 53";
    for (name, blows) in [
        ("no table", &["delete table inet covey-dns"][..]),
        ("no rules", &["flush chain inet covey-dns output"]),
        ("no chain", &["flush chain inet covey-dns output", "delete chain inet covey-dns output"]),
        ("one rule more", &["insert rule inet covey-dns output drop"]),
        (
            "elsewhere",
            &[
                "flush chain inet covey-dns output",
                &format!("{udp} udp dport set 9"),
                &format!("{} tcp dport set 9", udp.replace("udp", "tcp")),
            ],
        ),
        (
            "another chain",
            &[
                "delete table inet covey-dns",
                "add table inet covey-dns",
                "add chain inet covey-dns output { type filter hook output priority 0 ; }",
            ],
        ),
    ] {
        blows.iter().for_each(|blow| _ = lab.nft(blow));
        assert_ne!(lab.nft("list ruleset").unwrap(), rules, "{name}");
        assert!(lab.lead_here(), "{name}");
        assert_eq!(lab.nft("list ruleset").unwrap(), rules, "{name}");
        assert!(!lab.lead_here(), "{name}: once is enough");
        assert_eq!(addresses(&lab.ask("web", RecordType::A)), ["10.0.1.1"], "{name}");
    }
}

/// LB-01
#[test]
fn a_name_that_may_yet_be_told_is_waited_for_and_what_is_known_is_not() {
    let Some(lab) = Lab::new() else { return };
    let server = lab.udp("host", "127.0.0.1:0");
    lab.forward_to(&[server.local_addr().unwrap()]);
    lab.zone.send_modify(|zone| zone.set_whole(false));
    lab.set("a", web("10.0.1.1", &[]));
    let (early, outside) = (lab.client(), lab.client());
    early.send(&query("db", RecordType::A).to_vec().unwrap()).unwrap();
    outside.send(&query("example.com", RecordType::A).to_vec().unwrap()).unwrap();
    let mut stream = lab.connect(RESOLVER).unwrap();
    write_framed(&mut stream, &query("db", RecordType::A).to_vec().unwrap());
    // Read after those above.
    assert_eq!(addresses(&lab.ask("web", RecordType::A)), ["10.0.1.1"]);
    let own = vec!["db".to_owned()];
    lab.set("b", Member { own, ..web("10.0.1.2", &[]) });
    server.set_nonblocking(true).unwrap();
    assert!(server.recv_from(&mut [0; 512]).is_err(), "nothing is asked outside yet");
    server.set_nonblocking(false).unwrap();

    lab.zone.send_modify(|zone| zone.set_whole(true));
    assert_eq!(addresses(&receive(&early)), ["10.0.1.2"]);
    assert_eq!(addresses(&read_framed(&mut stream).unwrap()), ["10.0.1.2"]);
    let (question, _) = receive_from(&server);
    assert_eq!(question.queries[0].name.to_string(), "example.com.");
}

/// LB-01
#[test]
fn nobody_waits_for_a_network_that_is_gone() {
    let Some(lab) = Lab::new() else { return };
    let zone = tokio::sync::watch::Sender::new(covey_mesh::names::Zone::new("gone"));
    zone.send_modify(|zone| zone.set_whole(false));
    lab.scope.send_modify(|scope| scope.zones.push(zone.subscribe()));
    let client = lab.client();
    client.send(&query("db", RecordType::A).to_vec().unwrap()).unwrap();
    drop(zone);
    assert_eq!(code(&receive(&client)), ResponseCode::ServFail, "it is to try again");
}
