//! What clients can ask for and what is not built yet: refused by name, never silently left out.

use serde_json::Value;

use crate::{failure::Failure, wire::Rest};

/// Fields of `TaskTemplate`.
pub const TASK: &[(&str, &str)] = &[
    ("LogDriver", "--log-driver"),
    ("PluginSpec", "a service of plugins"),
    ("NetworkAttachmentSpec", "attaching containers to networks"),
];

/// Fields of a service's `ContainerSpec`.
pub const CONTAINER_SPEC: &[(&str, &str)] = &[
    ("Healthcheck", "--health-*"),
    ("Secrets", "--secret"),
    ("Configs", "--config"),
    ("TTY", "--tty"),
    ("OpenStdin", "standard input of a service"),
    ("Privileges", "--credential-spec and other privileges"),
    ("Init", "--init"),
    ("Sysctls", "--sysctl"),
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
    ("Healthcheck", "--health-*"),
    ("Volumes", "anonymous volumes"),
    ("MacAddress", "--mac-address"),
    ("Shell", "an image's shell"),
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
    ("Sysctls", "--sysctl"),
    ("Ulimits", "--ulimit"),
    ("Init", "--init"),
    ("Runtime", "--runtime"),
    ("ShmSize", "--shm-size"),
    ("PidMode", "--pid"),
    ("UTSMode", "--uts"),
    ("UsernsMode", "--userns"),
    ("CgroupParent", "--cgroup-parent"),
    ("CpuShares", "--cpu-shares"),
    ("CpuQuota", "--cpu-quota"),
    ("CpuPeriod", "--cpu-period"),
    ("CpusetCpus", "--cpuset-cpus"),
    ("CpusetMems", "--cpuset-mems"),
    ("BlkioWeight", "--blkio-weight"),
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

/// Refuses the first of these fields that says something; fields that are not listed are ignored.
pub fn refuse(fields: &Rest, later: &[(&str, &str)]) -> Result<(), Failure> {
    match later.iter().find(|(name, _)| fields.get(*name).is_some_and(says_something)) {
        Some((_, what)) => Err(Failure::not_yet(what)),
        None => Ok(()),
    }
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

    #[test]
    fn zero_values_and_unknown_fields_pass() {
        let empty = json!({
            "Sysctls": {}, "Privileged": false, "Devices": [], "CpuShares": 0, "Links": null, "PidMode": "",
            "Colour": "red",
        });
        assert_eq!(refusal(empty, HOST_CONFIG), None);
        let nothing = json!({"Privileges": {"CredentialSpec": null, "NoNewPrivileges": false}});
        assert_eq!(refusal(nothing, CONTAINER_SPEC), None);
    }
}
