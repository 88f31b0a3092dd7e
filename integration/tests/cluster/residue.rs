//! What is left in the kernel when all is over: nothing.

use covey_integration::{lab::Lab, residue, wait};

const REPAIR: u64 = 30;

/// SVC-50, SVC-51, CLU-25: services and containers leave no link, route, mount, process or control group behind;
/// a lab that goes down, with a host that was killed, leaves nothing at all.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn nothing_is_left_behind() {
    let machine = residue::links_of_the_machine();
    let Some(lab) = Lab::cluster(1, 2) else { return };
    // The first container makes what all of them share.
    for host in lab.hosts() {
        lab.covey(host, &["run", "--rm", "alpine", "true"]).ok();
    }
    let snapshot = |host: &str| residue::of_host(&lab, host);
    let before: Vec<_> = lab.hosts().map(snapshot).collect();

    lab.create_sleepers("m1", "web", 9);
    wait::until(REPAIR, "9 tasks", || lab.slots("web", lab.hosts()).len() == 9);
    for host in lab.hosts() {
        lab.covey(host, &["run", "-d", "--name", "plain", "alpine", "sleep", "10000"]).ok();
        lab.covey(host, &["run", "--name", "ended", "alpine", "echo", "x"]).ok();
        assert!(lab.covey(host, &["exec", "plain", "echo", "inside"]).ok() == "inside");
        lab.covey(host, &["run", "--rm", "--network", "none", "alpine", "true"]).ok();
    }
    assert_ne!(lab.hosts().map(snapshot).collect::<Vec<_>>(), before, "the snapshots see nothing");
    // Scaled, updated, its daemon killed in between: all the ways to go.
    lab.covey("m1", &["service", "scale", "-d", "web=4"]).ok();
    lab.script(&["restart", "w1"]).ok();
    lab.covey("m1", &["service", "update", "-d", "--force", "--update-parallelism", "0", "web"]).ok();
    wait::until(REPAIR, "4 tasks", || lab.slots("web", lab.hosts()) == [1, 2, 3, 4]);
    lab.covey("m1", &["service", "rm", "web"]).ok();
    for host in lab.hosts() {
        lab.covey(host, &["rm", "-f", "plain", "ended"]).ok();
    }
    for (host, before) in lab.hosts().zip(&before) {
        wait::until_equal(REPAIR, host, &Vec::<String>::new(), || {
            snapshot(host).symmetric_difference(before).cloned().collect()
        });
    }

    lab.create_sleepers("m1", "last", 3);
    wait::until(REPAIR, "3 tasks", || lab.slots("last", lab.hosts()).len() == 3);
    lab.script(&["kill", "w2"]).ok();
    let name = lab.name().to_owned();
    assert_ne!(residue::of_lab(&name).len(), 0, "the snapshot sees nothing");
    drop(lab);
    wait::until_equal(REPAIR, "the end of the lab", &Vec::<String>::new(), || {
        residue::of_lab(&name).into_iter().collect()
    });
    assert_eq!(residue::links_of_the_machine(), machine);
}
