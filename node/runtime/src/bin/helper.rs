//! Nothing but the shim: stands for the product's binary in this crate's tests.

fn main() {
    covey_runtime::reexec();
    eprintln!("this program is started by the runtime only");
    std::process::exit(2);
}
