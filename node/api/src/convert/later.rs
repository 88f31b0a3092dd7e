//! What clients can ask for and what is not built yet: refused by name, never silently left out.

use serde_json::Value;

use crate::{
    failure::Failure,
    wire::{Rest, container, system},
};

/// Fields of `TaskTemplate`.
pub const TASK: &[(&str, &str)] = &[
    ("LogDriver", "--log-driver (other than json-file without --log-opt)"),
    ("PluginSpec", "a service of plugins"),
    ("NetworkAttachmentSpec", "attaching containers to networks"),
];

/// Fields of a service's `ContainerSpec`.
pub const CONTAINER_SPEC: &[(&str, &str)] = &[
    ("Secrets", "--secret"),
    ("Configs", "--config"),
    ("TTY", "--tty"),
    ("OpenStdin", "standard input of a service"),
    ("Privileges", "--credential-spec and other privileges"),
    ("Init", "--init"),
    ("Isolation", "--isolation"),
    ("CapabilityAdd", "--cap-add"),
    ("CapabilityDrop", "--cap-drop"),
    ("Ulimits", "--ulimit"),
    ("OomScoreAdj", "--oom-score-adj"),
];

/// Fields of `Placement`.
pub const PLACEMENT: &[(&str, &str)] =
    &[("Preferences", "--placement-pref"), ("MaxReplicas", "--replicas-max-per-node")];

/// Fields of `Reservations`.
pub const RESERVATION: &[(&str, &str)] = &[("GenericResources", "--generic-resource")];

/// Fields of `Mount`.
pub const MOUNT: &[(&str, &str)] = &[
    ("BindOptions", "options of bind mounts"),
    ("VolumeOptions", "options of volumes"),
    ("ImageOptions", "mounting images"),
    ("ClusterOptions", "cluster volumes"),
];

/// Fields of a cluster's `CAConfig`.
pub const CA: &[(&str, &str)] = &[
    ("ExternalCAs", "--external-ca"),
    ("SigningCACert", "swarm ca --rotate"),
    ("SigningCAKey", "swarm ca --rotate"),
    ("ForceRotate", "swarm ca --rotate"),
];

/// Fields of a plain container's configuration.
pub const CONFIG: &[(&str, &str)] = &[
    ("Volumes", "anonymous volumes"),
    ("MacAddress", "--mac-address"),
    ("Shell", "an image's shell"),
    ("NetworkDisabled", "NetworkDisabled (use --network none)"),
];

/// Fields of a plain container's `HostConfig`.
pub const HOST_CONFIG: &[(&str, &str)] = &[
    ("Privileged", "--privileged"),
    ("CapAdd", "--cap-add"),
    ("CapDrop", "--cap-drop"),
    ("SecurityOpt", "--security-opt"),
    ("Devices", "--device"),
    ("DeviceRequests", "--gpus"),
    ("DeviceCgroupRules", "--device-cgroup-rule"),
    ("VolumesFrom", "--volumes-from"),
    ("VolumeDriver", "--volume-driver"),
    ("Links", "--link"),
    ("Ulimits", "--ulimit"),
    ("Init", "--init"),
    ("Runtime", "--runtime"),
    ("ShmSize", "--shm-size"),
    ("LogConfig", "--log-driver (other than json-file without --log-opt)"),
    ("Annotations", "--annotation"),
    ("MaskedPaths", "--security-opt systempaths"),
    ("ReadonlyPaths", "--security-opt systempaths"),
    ("Isolation", "--isolation"),
    ("IpcMode", "--ipc"),
    ("CgroupnsMode", "--cgroupns"),
    ("Cgroup", "the control group of another container"),
    ("PidMode", "--pid"),
    ("UTSMode", "--uts"),
    ("UsernsMode", "--userns"),
    ("CgroupParent", "--cgroup-parent"),
    ("CpuShares", "--cpu-shares"),
    ("CpuQuota", "--cpu-quota"),
    ("CpuPeriod", "--cpu-period"),
    ("CpusetCpus", "--cpuset-cpus"),
    ("CpusetMems", "--cpuset-mems"),
    ("CpuRealtimePeriod", "--cpu-rt-period"),
    ("CpuRealtimeRuntime", "--cpu-rt-runtime"),
    ("CpuCount", "--cpu-count"),
    ("CpuPercent", "--cpu-percent"),
    ("MemorySwap", "--memory-swap"),
    ("MemorySwappiness", "--memory-swappiness"),
    ("KernelMemory", "--kernel-memory"),
    ("KernelMemoryTCP", "--kernel-memory-tcp"),
    ("BlkioWeight", "--blkio-weight"),
    ("BlkioWeightDevice", "--blkio-weight-device"),
    ("BlkioDeviceReadBps", "--device-read-bps"),
    ("BlkioDeviceWriteBps", "--device-write-bps"),
    ("BlkioDeviceReadIOps", "--device-read-iops"),
    ("BlkioDeviceWriteIOps", "--device-write-iops"),
    ("IOMaximumIOps", "--io-maxiops"),
    ("IOMaximumBandwidth", "--io-maxbandwidth"),
    ("OomKillDisable", "--oom-kill-disable"),
    ("OomScoreAdj", "--oom-score-adj"),
    ("StorageOpt", "--storage-opt"),
];

/// Fields of a plain container's place in a network.
pub const JOIN: &[(&str, &str)] = &[
    ("Links", "--link"),
    ("MacAddress", "--mac-address"),
    ("DriverOpts", "--driver-opt of a container in a network"),
    ("GwPriority", "gw-priority"),
];

/// Fields of an exec.
pub const EXEC: &[(&str, &str)] = &[("Tty", "--tty"), ("Privileged", "--privileged")];

/// Refuses the first of these fields that asks for something else than what is so anyway; fields that are not listed are
/// ignored.
pub fn refuse(fields: &Rest, later: &[(&str, &str)]) -> Result<(), Failure> {
    match later.iter().find(|(name, _)| fields.get(*name).is_some_and(|value| asks(name, value))) {
        Some((_, what)) => Err(Failure::not_yet(what)),
        None => Ok(()),
    }
}

fn asks(name: &str, value: &Value) -> bool {
    // Of these Go's clients send nothing at all where nothing is wanted.
    let counts = matches!(name, "MemorySwappiness" | "MaskedPaths" | "ReadonlyPaths") && !value.is_null();
    (counts || says_something(value)) && !is_so_anyway(name, value)
}

/// True where a field names what every container has.
fn is_so_anyway(name: &str, value: &Value) -> bool {
    match name {
        "IpcMode" | "CgroupnsMode" => value == container::PRIVATE,
        // There are no namespaces of users.
        "UsernsMode" => value == "host",
        "Isolation" => value == "default",
        "Runtime" => value == system::RUNTIME,
        "ShmSize" => *value == container::SHM_BYTES,
        "MemorySwappiness" => *value == -1,
        "LogConfig" => is_log(&value["Type"], &value["Config"]),
        "LogDriver" => is_log(&value["Name"], &value["Options"]),
        _ => false,
    }
}

fn is_log(driver: &Value, options: &Value) -> bool {
    (*driver == "" || driver == system::LOG_DRIVER) && !says_something(options)
}

/// False for what Go would take for a zero value, at any depth.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        // A map of names says something by its keys, an object of fields by their values.
        Value::Object(fields) => {
            fields.values().any(|field| says_something(field) || *field == Value::Object(Rest::new()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(fields: Value, later: &[(&str, &str)]) -> Option<String> {
        refuse(fields.as_object().unwrap(), later).err().map(|failure| failure.message)
    }

    #[test]
    fn what_is_not_built_yet_is_refused_by_its_option() {
        let message = "not yet: --link is not available yet";
        let links = json!({"Links": ["db:database"]});
        assert_eq!(refusal(links, HOST_CONFIG).as_deref(), Some(message));
        assert!(refusal(json!({"Volumes": {"/data": {}}}), CONFIG).is_some());
        assert!(refusal(json!({"Secrets": [{}]}), CONTAINER_SPEC).is_some());
    }

    /// CTR-03
    #[test]
    fn what_would_be_other_than_it_is_anyway_is_refused() {
        for (field, value) in [
            ("IpcMode", json!("host")),
            ("IpcMode", json!("shareable")),
            ("CgroupnsMode", json!("host")),
            ("PidMode", json!("host")),
            ("UTSMode", json!("host")),
            ("UsernsMode", json!("private")),
            ("LogConfig", json!({"Type": "none", "Config": {}})),
            ("LogConfig", json!({"Type": "", "Config": {"max-size": "1m"}})),
            ("LogConfig", json!({"Type": "json-file", "Config": {"max-size": "1m"}})),
            ("MemorySwappiness", json!(0)),
            ("MaskedPaths", json!([])),
            ("ReadonlyPaths", json!(["/proc"])),
            ("MemorySwap", json!(-1)),
            ("ShmSize", json!(1 << 20)),
            ("BlkioDeviceReadBps", json!([{"Path": "/dev/sda", "Rate": 1}])),
            ("Annotations", json!({"a": "b"})),
        ] {
            let mut fields = Rest::new();
            fields.insert(field.to_owned(), value.clone());
            assert!(refuse(&fields, HOST_CONFIG).is_err(), "{field} {value}");
        }
        assert!(refusal(json!({"LogDriver": {"Name": "syslog"}}), TASK).is_some());
    }

    #[test]
    fn zero_values_and_unknown_fields_pass() {
        let empty = json!({
            "Devices": [], "Privileged": false, "Tmpfs": {}, "CpuShares": 0, "Links": null, "PidMode": "",
            "Colour": "red",
        });
        assert_eq!(refusal(empty, HOST_CONFIG), None);
        let same = json!({
            "IpcMode": "private", "CgroupnsMode": "private", "UsernsMode": "host", "Isolation": "default",
            "Runtime": "covey", "ShmSize": 64 << 20, "MemorySwappiness": -1,
            "LogConfig": {"Type": "json-file", "Config": {}},
        });
        assert_eq!(refusal(json!({"LogConfig": {"Type": "", "Config": {}}}), HOST_CONFIG), None);
        assert_eq!(refusal(same, HOST_CONFIG), None);
        assert_eq!(refusal(json!({"LogDriver": {"Name": "json-file"}}), TASK), None);
        let nothing = json!({"Privileges": {"CredentialSpec": null, "NoNewPrivileges": false}});
        assert_eq!(refusal(nothing, CONTAINER_SPEC), None);
    }
}
