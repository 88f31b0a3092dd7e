//! Connections that differ in little, each of which is a flow of its own.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use covey_integration::{
    lab::{ALPINE, Lab},
    space::{ANSWER, Space},
    wait,
};

/// Seconds until what was told to start runs.
const START: u64 = 30;
/// The port of a task, and how often it is asked.
const PORT: u16 = 9000;
const ROUNDS: usize = 20;

fn socket(space: &Space) -> UdpSocket {
    let socket = space.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.set_read_timeout(Some(ANSWER)).expect("a limit");
    socket
}

/// A virtual address and the task behind it are called from one port by turns, and each answers for itself, in whichever
/// order the two were called first.
///
/// LB-02, NET-18
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_task_called_beside_its_virtual_address_answers_for_itself() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    let docker = |args: &str| lab.docker("m1", &args.split(' ').collect::<Vec<_>>());
    docker("network create --driver overlay --attachable front").ok();
    docker(&format!(
        "service create --detach --no-resolve-image --name back --network front --constraint node.role==worker \
         {ALPINE} sleep 1000"
    ))
    .ok();
    docker(&format!("run --detach --name client --network front {ALPINE} sleep 1000")).ok();
    wait::until(START, "the task runs", || lab.running(["w1"]).len() == 1);

    let (_, task) = lab.running(["w1"]).remove(0);
    let (client, server) = (socket(&lab.space_of("m1", "client")), socket(&lab.space_of("w1", &task)));
    let service = lab.get("m1", "/services/back").expect("the service");
    let inspected = lab.get("w1", &format!("/containers/{task}/json")).expect("the task's container");
    let [address, of_task] = [
        &service["Endpoint"]["VirtualIPs"][0]["Addr"],
        &inspected["NetworkSettings"]["Networks"]["front"]["IPAddress"],
    ]
    .map(|text| text.as_str().and_then(|text| text.split('/').next()).expect("an address").to_owned());
    let port = server.local_addr().expect("its port").port();

    let ask = |client: &UdpSocket, to: &str| {
        let to = SocketAddr::new(to.parse::<IpAddr>().expect("an address"), port);
        let mut bytes = [0; 8];
        client.send_to(b"who", to).expect("it is sent");
        let (length, from) = server.recv_from(&mut bytes).expect("it arrives");
        server.send_to(&bytes[..length], from).expect("it is answered");
        assert_eq!(client.recv_from(&mut bytes).expect("the answer arrives"), (length, to));
    };
    wait::until(START, "the virtual address leads to the task", || {
        client.send_to(b"who", (address.as_str(), port)).is_ok() && server.recv(&mut [0; 8]).is_ok()
    });
    for first in [[&address, &of_task], [&of_task, &address]] {
        let client = socket(&lab.space_of("m1", "client"));
        (0..3).for_each(|_| first.iter().for_each(|to| ask(&client, to)));
    }
}

/// One task is asked from one port of one client, by the published port of each host in turns: each answers for itself, and
/// the task tells three clients apart.
///
/// PRT-05, LB-02
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_client_of_one_port_that_asks_by_several_hosts_is_answered_by_each() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    let create = "service create --detach --no-resolve-image --name back --constraint node.hostname==w1";
    let create = format!("{create} --publish 8080:{PORT}/udp {ALPINE} sleep 1000");
    lab.docker("m1", &create.split(' ').collect::<Vec<_>>()).ok();
    wait::until(START, "the task runs", || lab.running(["w1"]).len() == 1);
    let (_, task) = lab.running(["w1"]).remove(0);
    let server = lab.space_of("w1", &task).run(|| UdpSocket::bind(("0.0.0.0", PORT))).expect("a server");
    server.set_read_timeout(Some(ANSWER)).expect("a limit");
    let client = socket(&lab.space("hub"));

    let mut seen = BTreeSet::new();
    let mut ask = |host: &str| {
        let to = SocketAddr::new(lab.address(host).parse().expect("an address"), 8080);
        let mut bytes = [0; 8];
        client.send_to(b"who", to).ok()?;
        let (length, from) = server.recv_from(&mut bytes).ok()?;
        server.send_to(&bytes[..length], from).expect("it is answered");
        assert_eq!(client.recv_from(&mut bytes).expect("the answer arrives"), (length, to));
        assert_eq!(from.ip().to_string(), "10.77.0.1");
        seen.insert(from);
        Some(())
    };
    for host in lab.hosts() {
        wait::until(START, &format!("{host} leads to the task"), || ask(host).is_some());
    }
    for _ in 0..ROUNDS {
        lab.hosts().for_each(|host| ask(host).expect("it arrives"));
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}
