//! The flow cache with many at once.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use covey_overlay::flow_cache::ARRIVALS;
use lab::{until, world::*};
use netlink_packet_route::link::LinkFlags;

/// Both ends of many flows, all of whose packets look alike but for their last bytes.
struct Pair {
    near: UdpSocket,
    far: UdpSocket,
    number: u32,
}

/// So many between these.
fn pairs(world: &World, ends: [&Container; 2], numbers: std::ops::Range<u32>) -> Vec<Pair> {
    let pair = |number| {
        let [near, far] = ends.map(|end| world.udp(end, false));
        near.connect(far.local_addr().unwrap()).unwrap();
        far.set_nonblocking(true).unwrap();
        Pair { near, far, number }
    };
    numbers.map(pair).collect()
}

impl Pair {
    fn send(&self) {
        let bytes = [&[0; 12][..], &self.number.to_be_bytes()].concat();
        // What has no way at the moment is lost.
        let _ = self.near.send(&bytes);
    }

    /// Looks at all that has come, which must be its own.
    fn look(&self) -> usize {
        let mut buffer = [0; 64];
        let mut count = 0;
        while let Ok((length, from)) = self.far.recv_from(&mut buffer) {
            assert_eq!(length, 16);
            let number = u32::from_be_bytes(buffer[12..16].try_into().unwrap());
            assert_eq!((number, from), (self.number, self.near.local_addr().unwrap()));
            count += 1;
        }
        count
    }
}

/// A packet may wait in the kernel for the next host's Ethernet address, while so many others come in that nobody remembers
/// how it did.
#[test]
fn packets_that_were_kept_back_teach_nothing_about_others() {
    const WAITING: u32 = 40;
    const OTHERS: u32 = 300;
    let Some(world) = World::over(false) else { return };
    let waiting = pairs(&world, [&CLIENT, &FAR], 0..WAITING);
    let others = pairs(&world, [&CLIENT, &NEAR], WAITING..WAITING + OTHERS);
    let often = "/proc/sys/net/ipv4/neigh/up0/retrans_time_ms";
    world.lab.within("h1", || std::fs::write(often, "20")).unwrap();
    let send = |pairs: &[Pair]| pairs.iter().for_each(Pair::send);
    for _ in 0..3 {
        world.lab.set("wire", "p2", LinkFlags::empty(), vec![]);
        world.lab.forget_neighbour("h1", "up0", lab::routers::local(2, false));
        world.forget();
        send(&waiting);
        for _ in 0..=ARRIVALS / OTHERS {
            world.forget();
            send(&others);
            assert!(others.iter().all(|pair| pair.look() == 1));
        }
        world.lab.up("wire", "p2");
        until("the last one that waited", || waiting[WAITING as usize - 1].look() == 1);
        send(&others);
        assert!(others.iter().all(|pair| pair.look() == 1));
        waiting.iter().for_each(|pair| _ = pair.look());
    }
}

/// All at once, on all processors, and each anew all the time.
#[test]
fn nobody_gets_what_is_for_another() {
    const FLOWS: u32 = 200;
    const TIME: Duration = Duration::from_millis(1500);
    let Some(world) = World::over(false) else { return };
    let all = [pairs(&world, [&CLIENT, &FAR], 0..FLOWS), pairs(&world, [&OTHER, &NEAR], FLOWS..2 * FLOWS)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let start = Instant::now();
    let mut seen = 0;
    std::thread::scope(|scope| {
        for half in all.chunks(FLOWS as usize) {
            scope.spawn(|| {
                while start.elapsed() < TIME {
                    half.iter().for_each(Pair::send);
                }
            });
        }
        while start.elapsed() < TIME {
            world.forget();
            seen += all.iter().map(Pair::look).sum::<usize>();
        }
    });
    assert!(seen > all.len());
}
