//! Names that the container's networks do not know.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use covey_mesh_dns::Outside;
use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, NULL, TXT},
    },
};

use crate::lab::{
    Lab, RESOLVER, addresses, answers, code, query, query_with_room, read_framed, receive, receive_from, web,
    write_framed,
};

/// A resolver of the host, at an address that only the host reaches.
fn server(lab: &Lab, address: &str) -> (UdpSocket, SocketAddr) {
    let socket = lab.udp("host", address);
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What a server says to that question: one address.
fn answer(question: &Message) -> Message {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.recursion_available = true;
    message.add_query(question.queries[0].clone());
    let name = question.queries[0].name.clone();
    message.add_answer(Record::from_rdata(name, 300, RData::A(A::new(192, 0, 2, 1))));
    message
}

fn send(server: &UdpSocket, message: &Message, to: SocketAddr) {
    server.send_to(&message.to_vec().unwrap(), to).unwrap();
}

/// NET-23
#[test]
fn a_name_outside_is_asked_of_the_hosts_resolver_even_on_its_loopback() {
    let Some(lab) = Lab::new() else { return };
    let (server, address) = server(&lab, "127.0.0.53:53");
    lab.forward_to(&[address]);
    let (client, mut asked) = (lab.client(), query("Example.COM.", RecordType::A));
    asked.metadata.checking_disabled = true;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        client.send(&asked.to_vec().unwrap()).unwrap();
        let (question, from) = receive_from(&server);
        assert_eq!(question.queries, asked.queries);
        assert!(question.metadata.recursion_desired && question.metadata.checking_disabled);
        seen.insert((question.metadata.id, from.port()));
        send(&server, &answer(&question), from);
        let found = receive(&client);
        assert_eq!((found.metadata.id, addresses(&found)), (asked.metadata.id, vec!["192.0.2.1".to_owned()]));
        assert_eq!((found.answers[0].ttl, found.edns), (300, None));
    }
    assert!(seen.len() > 1, "neither id nor port changes: {seen:?}");
}

#[test]
fn what_is_answered_is_handed_on_as_it_is() {
    let Some(lab) = Lab::new() else { return };
    let (server, address) = server(&lab, "127.0.0.1:0");
    lab.forward_to(&[address]);
    let client = lab.client();
    let unheard_of = RecordType::Unknown(65400);
    client.send(&query_with_room("example.com", unheard_of, 1232).to_vec().unwrap()).unwrap();
    let (question, from) = receive_from(&server);
    let mut theirs = answer(&question);
    theirs.metadata.authentic_data = true;
    let name = question.queries[0].name.clone();
    let strange = RData::Unknown { code: unheard_of, rdata: NULL::with(vec![1, 2, 3]) };
    theirs.answers = vec![Record::from_rdata(name.clone(), 60, strange)];
    theirs.add_authority(Record::from_rdata(name, 60, RData::TXT(TXT::new(vec!["more".into()]))));
    send(&server, &theirs, from);
    let found = receive(&client);
    assert_eq!((&found.answers, &found.authorities), (&theirs.answers, &theirs.authorities));
    assert!(found.metadata.authentic_data && found.edns.is_some());

    client.send(&query("nobody.example", RecordType::A).to_vec().unwrap()).unwrap();
    let (question, from) = receive_from(&server);
    let mut none = answer(&question);
    none.answers.clear();
    none.metadata.response_code = ResponseCode::NXDomain;
    send(&server, &none, from);
    assert_eq!(code(&receive(&client)), ResponseCode::NXDomain);
}

#[test]
fn the_next_server_is_asked_if_one_is_silent_or_absent_or_fails() {
    let Some(lab) = Lab::new() else { return };
    let (silent, first) = server(&lab, "127.0.0.1:0");
    let (good, second) = server(&lab, "[::1]:0");
    let (closed, absent) = server(&lab, "127.0.0.1:0");
    drop(closed);
    let client = lab.client();
    let ask = |servers: &[SocketAddr]| {
        lab.forward_to(servers);
        client.send(&query("example.com", RecordType::A).to_vec().unwrap()).unwrap();
    };
    let hear_good = || {
        let (question, from) = receive_from(&good);
        send(&good, &answer(&question), from);
        assert_eq!(addresses(&receive(&client)), ["192.0.2.1"]);
    };

    ask(&[absent, second]);
    hear_good();

    ask(&[first, second]);
    let (mut refusal, from) = receive_from(&silent);
    refusal.metadata.message_type = MessageType::Response;
    refusal.metadata.response_code = ResponseCode::Refused;
    send(&silent, &refusal, from);
    hear_good();

    let begun = Instant::now();
    ask(&[first, second]);
    receive_from(&silent);
    hear_good();
    assert!(begun.elapsed() < Duration::from_secs(5), "clients give up then");

    ask(&[absent]);
    assert_eq!(code(&receive(&client)), ResponseCode::ServFail);
}

#[test]
fn an_answer_that_was_cut_is_fetched_over_tcp_and_cut_to_what_the_client_takes() {
    let Some(lab) = Lab::new() else { return };
    let (server, address) = server(&lab, "127.0.0.1:0");
    let listener = lab.listener("host", &address.to_string());
    lab.forward_to(&[address]);
    let serve = || {
        let (question, from) = receive_from(&server);
        let mut cut = answer(&question);
        cut.metadata.truncation = true;
        send(&server, &cut, from);
        let (mut stream, _) = listener.accept().unwrap();
        let mut whole = answer(&read_framed(&mut stream).unwrap());
        let record = whole.answers[0].clone();
        whole.answers = vec![record; 300];
        write_framed(&mut stream, &whole.to_vec().unwrap());
    };
    let asked = query("example.com", RecordType::A);
    let mut stream = lab.connect(RESOLVER).unwrap();
    write_framed(&mut stream, &asked.to_vec().unwrap());
    serve();
    let whole = read_framed(&mut stream).unwrap();
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (300, false));

    let client = lab.client();
    client.send(&asked.to_vec().unwrap()).unwrap();
    serve();
    let cut = receive(&client);
    assert_eq!((cut.answers.len(), cut.metadata.truncation), ((512 - 29) / 16, true));
}

#[test]
fn forged_answers_are_passed_over() {
    let Some(lab) = Lab::new() else { return };
    let (server, address) = server(&lab, "127.0.0.1:0");
    let stranger = lab.udp("host", "127.0.0.1:0");
    lab.forward_to(&[address]);
    let client = lab.client();
    client.send(&query("example.com", RecordType::A).to_vec().unwrap()).unwrap();
    let (question, from) = receive_from(&server);

    let right = answer(&question);
    let forged = |change: &dyn Fn(&mut Message)| {
        let mut message = right.clone();
        message.answers[0].data = RData::A(A::new(203, 0, 113, 66));
        change(&mut message);
        message
    };
    let other = Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A);
    for message in [
        forged(&|message| message.metadata.id = message.metadata.id.wrapping_add(1)),
        forged(&|message| message.metadata.message_type = MessageType::Query),
        forged(&|message| message.queries = vec![other.clone()]),
        forged(&|message| message.queries[0].query_type = RecordType::AAAA),
        forged(&|message| message.queries.clear()),
        forged(&|message| message.queries.push(other.clone())),
    ] {
        send(&server, &message, from);
    }
    server.send_to(b"not an answer", from).unwrap();
    server.send_to(&[], from).unwrap();
    send(&stranger, &forged(&|_| {}), from);
    send(&server, &right, from);
    assert_eq!(answers(&receive(&client)), answers(&right));
}

#[test]
fn a_flood_is_bounded_and_does_not_stop_names_of_ours() {
    let Some(lab) = Lab::new() else { return };
    let (server, address) = server(&lab, "127.0.0.1:0");
    lab.forward_to(&[address]);
    lab.set("a", web("10.0.1.1", &[]));
    let client = lab.client();
    for number in 0..200 {
        client.send(&query(&format!("{number}.example"), RecordType::A).to_vec().unwrap()).unwrap();
    }
    // Read by the resolver after all of the above.
    assert_eq!(addresses(&lab.ask("web", RecordType::A)), ["10.0.1.1"]);
    let waiting: Vec<_> = (0..64).map(|_| receive_from(&server)).collect();
    server.set_nonblocking(true).unwrap();
    let more = server.recv_from(&mut [0; 512]);
    assert!(more.is_err(), "more than 64 at once");
    server.set_nonblocking(false).unwrap();

    for (question, from) in waiting {
        send(&server, &answer(&question), from);
        receive(&client);
    }
    client.send(&query("after.example", RecordType::A).to_vec().unwrap()).unwrap();
    let (question, from) = receive_from(&server);
    assert_eq!(question.queries[0].name.to_string(), "after.example.");
    send(&server, &answer(&question), from);
    assert_eq!(addresses(&receive(&client)), ["192.0.2.1"]);
}

/// LB-01: such as a DNS server that is a task of the same network.
#[test]
fn a_containers_own_servers_are_asked_from_where_it_is() {
    let Some(lab) = Lab::new() else { return };
    let server = lab.udp("container", "127.0.0.1:0");
    let address = server.local_addr().unwrap();
    let listener = lab.listener("container", &address.to_string());
    let client = lab.client();
    let ask = || client.send(&query("example.com", RecordType::A).to_vec().unwrap()).unwrap();
    // This resolver itself is left out: it would ask itself for ever.
    lab.scope.send_modify(|scope| scope.outside = Outside::Own(vec![RESOLVER.parse().unwrap(), address]));
    ask();
    let (question, from) = receive_from(&server);
    send(&server, &answer(&question), from);
    assert_eq!(addresses(&receive(&client)), ["192.0.2.1"]);

    ask();
    let (question, from) = receive_from(&server);
    let mut cut = answer(&question);
    cut.metadata.truncation = true;
    send(&server, &cut, from);
    let (mut stream, _) = listener.accept().unwrap();
    let whole = answer(&read_framed(&mut stream).unwrap());
    write_framed(&mut stream, &whole.to_vec().unwrap());
    assert_eq!(addresses(&receive(&client)), ["192.0.2.1"]);

    // From the host nobody is there.
    lab.forward_to(&[address]);
    ask();
    assert_eq!(code(&receive(&client)), ResponseCode::ServFail);
}
