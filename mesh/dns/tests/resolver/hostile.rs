//! Clients that send what no client should.

use std::{
    io::{ErrorKind, Read, Write},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::lab::{Lab, RESOLVER, addresses, code, query, read_framed, receive, web, write_framed};

/// Random datagrams of the fuzz-like test.
const DATAGRAMS: usize = 3000;
/// As many of them as a socket has room for.
const BURST: usize = 100;

fn ours() -> Option<Lab> {
    let lab = Lab::new()?;
    lab.set("a", web("10.0.1.1", &[]));
    Some(lab)
}

fn still_works(lab: &Lab) {
    let asked = query("web", RecordType::A);
    assert_eq!(addresses(&lab.ask_all(&asked)), ["10.0.1.1"]);
    assert_eq!(addresses(&lab.ask_tcp(&asked)), ["10.0.1.1"]);
}

/// A query with these bytes after its header, and this many questions and additional records.
fn raw(questions: u16, additionals: u16, body: &[u8]) -> Vec<u8> {
    let counts = [0x0100, questions, 0, 0, additionals];
    let header = [0xbeef].into_iter().chain(counts).flat_map(u16::to_be_bytes);
    header.chain(body.iter().copied()).collect()
}

/// One question for an address of `web`.
const WEB: [u8; 9] = *b"\x03web\0\0\x01\0\x01";

#[test]
fn packets_that_are_no_query_get_no_answer_and_bad_queries_are_told_so() {
    let Some(lab) = ours() else { return };
    let good = raw(1, 0, &WEB);
    let with = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        bytes
    };
    let class = with(good.len() - 1, 3);
    let many = raw(2, 0, &[WEB, WEB].concat());
    let edns = |version: u8| raw(1, 1, &[&WEB[..], b"\0\0\x29\x10\0\0", &[version], b"\0\0\0\0"].concat());
    let two_edns = raw(1, 2, &[&WEB[..], &b"\0\0\x29\x10\0\0\0\0\0\0\0".repeat(2)].concat());
    let long = [good.clone(), vec![0; 5000]].concat();
    for (what, bytes, told) in [
        ("nothing", vec![], None),
        ("half a header", good[..11].to_vec(), None),
        ("an answer", with(2, 0x81), None),
        ("longer than any query", long, None),
        ("a header alone", raw(0, 0, &[]), Some(ResponseCode::FormErr)),
        ("a question too few", raw(1, 0, &[]), Some(ResponseCode::FormErr)),
        ("two questions", many, Some(ResponseCode::FormErr)),
        ("65535 questions", raw(65535, 0, &WEB), Some(ResponseCode::FormErr)),
        ("records that are not there", raw(1, 65535, &WEB), Some(ResponseCode::FormErr)),
        ("a name that points to itself", raw(1, 0, b"\xc0\x0c\0\x01\0\x01"), Some(ResponseCode::FormErr)),
        (
            "names that point to each other",
            raw(1, 0, b"\xc0\x0e\xc0\x0c\0\x01\0\x01"),
            Some(ResponseCode::FormErr),
        ),
        ("a name that points beyond", raw(1, 0, b"\xff\xff\0\x01\0\x01"), Some(ResponseCode::FormErr)),
        ("a label of a kind that is not", raw(1, 0, b"\x83web\0\0\x01\0\x01"), Some(ResponseCode::FormErr)),
        ("a name without end", raw(1, 0, &b"\x3f".repeat(400)), Some(ResponseCode::FormErr)),
        ("EDNS twice", two_edns, Some(ResponseCode::FormErr)),
        ("EDNS of the future", edns(1), Some(ResponseCode::BADVERS)),
        ("an update", with(2, 5 << 3), Some(ResponseCode::NotImp)),
        ("a status query", with(2, 2 << 3), Some(ResponseCode::NotImp)),
        ("another class", class, Some(ResponseCode::Refused)),
        ("a good query", edns(0), Some(ResponseCode::NoError)),
    ] {
        let client = lab.client();
        client.send(&bytes).unwrap();
        // Asked on the same socket, so that the next answer shows whether the first had one.
        let next = query("web", RecordType::A);
        client.send(&next.to_vec().unwrap()).unwrap();
        let mut answer = receive(&client);
        if let Some(told) = told {
            // By number: two names have the same.
            let found = (answer.metadata.id, u16::from(code(&answer)));
            assert_eq!(found, (0xbeef, u16::from(told)), "{what}");
            answer = receive(&client);
        }
        assert_eq!((answer.metadata.id, code(&answer)), (next.metadata.id, ResponseCode::NoError), "{what}");
    }
    still_works(&lab);
}

#[test]
fn names_that_no_text_can_say_are_nobodys() {
    let Some(lab) = ours() else { return };
    for label in [&b"w.b"[..], b"we\0", b"w\xffb", b"w b", b"w\\b"] {
        let mut bytes = raw(1, 0, &WEB);
        bytes[13..16].copy_from_slice(label);
        let client = lab.client();
        client.send(&bytes).unwrap();
        assert_eq!(code(&receive(&client)), ResponseCode::NXDomain, "{label:?}");
    }
}

#[test]
fn random_bytes_stop_nothing() {
    let Some(lab) = ours() else { return };
    let mut random = StdRng::seed_from_u64(53);
    let client = lab.client();
    for number in 1..=DATAGRAMS {
        let mut bytes = raw(1, 0, &WEB);
        match random.random_range(0..3) {
            0 => bytes = (0..random.random_range(0..600)).map(|_| random.random()).collect(),
            1 => bytes.extend((0..random.random_range(0..60)).map(|_| random.random::<u8>())),
            _ => {}
        }
        for _ in 0..random.random_range(0..4) {
            if !bytes.is_empty() {
                let place = random.random_range(0..bytes.len());
                bytes[place] = random.random();
            }
        }
        client.send(&bytes).unwrap();
        if number % BURST == 0 {
            still_works(&lab);
        }
    }
}

#[test]
fn connections_that_send_no_dns_are_closed() {
    let Some(lab) = ours() else { return };
    for (what, bytes) in [
        ("a length beyond any query", vec![0x10, 0x01, 1, 2, 3]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("no query", vec![0, 0]),
        ("an answer", [vec![0, 21], raw(1, 0, &WEB).into_iter().map(|byte| byte | 0x80).collect()].concat()),
    ] {
        let mut stream = lab.connect(RESOLVER).unwrap();
        stream.write_all(&bytes).unwrap();
        // With what was not read, the end is a reset.
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
            Ok(_) => assert!(said.is_empty(), "{what}: {said:?}"),
        }
    }
    let mut stream = lab.connect(RESOLVER).unwrap();
    write_framed(&mut stream, &raw(1, 0, &[]));
    assert_eq!(code(&read_framed(&mut stream).unwrap()), ResponseCode::FormErr);
    still_works(&lab);
}

#[test]
fn idle_connections_are_bounded_and_leave_udp_alone() {
    let Some(lab) = ours() else { return };
    let asked = query("web", RecordType::A).to_vec().unwrap();
    let mut idle: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = lab.connect(RESOLVER).unwrap();
            write_framed(&mut stream, &asked);
            read_framed(&mut stream).unwrap();
            // The first half of another query.
            stream.write_all(&[0]).unwrap();
            stream
        })
        .collect();
    let mut next = lab.connect(RESOLVER).unwrap();
    write_framed(&mut next, &asked);
    assert_eq!(addresses(&lab.ask("web", RecordType::A)), ["10.0.1.1"]);
    next.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(next.read(&mut [0; 1]).is_err(), "a seventeenth connection");
    idle.pop();
    next.set_read_timeout(Some(crate::lab::PATIENCE)).unwrap();
    assert_eq!(addresses(&read_framed(&mut next).unwrap()), ["10.0.1.1"]);
}
