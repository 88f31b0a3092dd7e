//! Bad input about networks, names and ports: one clear error each, and the data plane of others goes on undisturbed.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use covey_integration::{dns, lab::Lab, wait};
use serde_json::{Value, json};

const REPAIR: u64 = 20;
const CREATE: &str = "/networks/create";

fn network(name: &str, subnets: &[Value]) -> Value {
    json!({"Name": name, "Driver": "overlay", "IPAM": {"Config": subnets}})
}

fn service(name: &str, networks: &Value, ports: &Value) -> Value {
    let container = json!({"Image": "alpine", "Args": ["witness"]});
    json!({"Name": name, "TaskTemplate": {"ContainerSpec": container, "Networks": networks},
        "EndpointSpec": {"Ports": ports}})
}

fn port(published: u64, target: u64) -> Value {
    json!({"Protocol": "tcp", "TargetPort": target, "PublishedPort": published})
}

/// NET-12, NET-14, NET-32, PRT-11, C-29: whatever is wrong is refused in one sentence that names it, and requests to others
/// are answered all the while.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn wrong_networks_ports_and_questions_disturb_nobody() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "--subnet", "10.50.0.0/24", "net"]).ok();
    let web = service("web", &json!([{"Target": "net"}]), &json!([port(8080, 80)]));
    let post = |path: &str, body: &Value| lab.request("m1", "POST", path, Some(&body.to_string()));
    assert_eq!(post("/services/create", &web).0, 201);
    let client = service("client", &json!([{"Target": "net"}]), &json!([]));
    assert_eq!(post("/services/create", &client).0, 201);
    wait::until(REPAIR, "both", || lab.running(lab.hosts()).len() == 2);
    let of_client = |(_, name): &(String, String)| name.starts_with("client.");
    let (host, name) = lab.running(lab.hosts()).into_iter().find(of_client).expect("the client");
    let inside = lab.space_of(&host, &name);
    let (hub, to) = (lab.space("hub"), format!("{}:8080", lab.address("w1")));
    let vip = wait::until_some(REPAIR, "its name", || inside.addresses("web").pop());
    wait::until(REPAIR, "the port", || hub.ask(&to).is_ok());

    let subnet = |text: &str| json!({"Subnet": text});
    let cases: Vec<(&str, Value, &str)> = vec![
        (CREATE, network("a", &[subnet("10.50.0.0/16")]), "overlaps with subnet 10.50.0.0/24 of network net"),
        (CREATE, network("a", &[subnet("10.60.0.0/24"), subnet("10.60.0.0/25")]), "overlaps with subnet"),
        (
            CREATE,
            network("a", &[json!({"Subnet": "10.60.0.0/24", "Gateway": "10.61.0.1"})]),
            "gateway 10.61.0.1",
        ),
        (
            CREATE,
            network("a", &[json!({"Subnet": "10.60.0.0/24", "IPRange": "10.61.0.0/25"})]),
            "10.61.0.0/25",
        ),
        (CREATE, network("a", &[json!({"Gateway": "10.61.0.1"})]), "subnet"),
        (CREATE, network("a", &[subnet("10.60.0.0/31")]), "10.60.0.0/31 is too small"),
        (CREATE, network("a", &[subnet("10.60.0.1/32")]), "10.60.0.1/32 is too small"),
        (CREATE, network("a", &[subnet("10.60.0.0")]), "10.60.0.0 has no prefix length"),
        (CREATE, network("a", &[subnet("fd60::")]), "fd60:: has no prefix length"),
        (CREATE, network("a", &[subnet("fd60::/64")]), "--ipv6"),
        (CREATE, network("a", &[subnet("10.60.0.7/24")]), "10.60.0.0/24"),
        (CREATE, network("net", &[]), "already exists"),
        (CREATE, network("no good", &[]), "no good"),
        (CREATE, json!({"Name": "a", "Driver": "overlay", "Options": {"encrypted": ""}}), "encrypted"),
        (
            CREATE,
            json!({"Name": "a", "Driver": "overlay",
                "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4096"}}),
            "4096",
        ),
        ("/services/create", service("a", &json!([{"Target": "none-such"}]), &json!([])), "none-such"),
        (
            "/services/create",
            service("a", &json!([]), &json!([port(8080, 81)])),
            "port '8080' is already in use by service 'web'",
        ),
        ("/services/create", service("a", &json!([]), &json!([port(90, 80), port(90, 81)])), "90"),
        ("/services/create", service("a", &json!([]), &json!([port(65_536, 80)])), "65536"),
        ("/services/create", service("a", &json!([]), &json!([port(90, 0)])), "port"),
    ];
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = wait::Raise(&over);
        let traffic = scope.spawn(|| {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                hub.ask(&to).expect("the port answers");
                inside.ask(&format!("{vip}:80")).expect("the virtual address answers");
                answers += 1;
            }
            answers
        });
        for (path, body, words) in &cases {
            let (status, answer) = post(path, body);
            let message = serde_json::from_str::<Value>(&answer).unwrap_or_default()["message"].take();
            let message = message.as_str().unwrap_or_default();
            assert!((400..500).contains(&status) || status == 501, "{body}: {status} {answer}");
            assert!(
                message.contains(words) && !message.contains('\n'),
                "{body}: {words:?} is not in {message:?}"
            );
        }
        lab.docker("m1", &["network", "rm", "net"]).refused_with("is in use by service");
        // As many ports as anybody ever wants either are there or are refused by one error.
        let many: Vec<Value> = (0..1000).map(|number| port(40_000 + number, 80)).collect();
        let (status, answer) = post("/services/create", &service("many", &json!([]), &many.into()));
        assert!(status == 201 || (status == 400 && answer.contains("ports")), "{status} {answer}");
        if status == 201 {
            wait::until(REPAIR, "the last of 1,000 ports", || {
                hub.ask(&format!("{}:40999", lab.address("m1"))).is_ok()
            });
            lab.docker("m1", &["service", "rm", "many"]).ok();
        }
        // An alias that is the name of another service: that one keeps its name.
        let alias = json!([{"Target": "net", "Aliases": ["web"]}]);
        let (status, answer) = post("/services/create", &service("impostor", &alias, &json!([])));
        assert!(status == 201 || answer.contains("web"), "{status} {answer}");
        wait::stays(1, "the name of a service", &vec![vip.clone()], || inside.addresses("web"));

        // A hostile client of the resolver: nothing, halves, loops of compression, and more than it can take.
        inside.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            let mut looped = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            looped.extend([0xc0, 12, 0, 1, 0, 1]);
            let many =
                [&[0, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0xff; 200]].concat();
            for message in [&[][..], &[0], &looped, &looped[..11], &many, &vec![0x3f; 60_000]] {
                for _ in 0..300 {
                    // The socket's own queue may be full: that is the resolver's good right.
                    let _ = socket.send_to(message, dns::RESOLVER);
                }
            }
        });
        assert_eq!(inside.addresses("web"), [vip.as_str()]);
        drop(ended);
        assert!(traffic.join().expect("nobody is disturbed") > 10);
    });
    for host in lab.hosts() {
        assert!(!lab.log(host).contains("panicked"), "{}", lab.log(host));
    }
}
