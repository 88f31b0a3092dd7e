//! Changes of a spec as the daemon sent it: what is not changed stays, known to this client or not.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::command::options;

/// The place at `path` (parts joined by slashes), made where it is not there.
pub fn at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('/').fold(value, |value, key| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        // It is an object now.
        &mut value[key]
    })
}

/// # Errors
/// A service of another mode (MOD-06).
pub fn set_replicas(spec: &mut Value, replicas: u64) -> Result<()> {
    let mode = &spec["Mode"];
    if mode.as_object().is_some_and(|mode| !mode.is_empty() && !mode.contains_key("Replicated")) {
        bail!("replicas can only be used with replicated mode");
    }
    *at(spec, "Mode/Replicated/Replicas") = json!(replicas);
    Ok(())
}

/// Removes variables by name, then adds or replaces others (SVC-44).
pub fn environment(spec: &mut Value, add: &[String], remove: &[String]) -> Result<()> {
    list(spec, "TaskTemplate/ContainerSpec/Env", |variables| {
        let mut variables: Vec<String> =
            variables.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
        variables.retain(|text| !remove.iter().any(|name| name == options::variable_name(text)));
        options::set_variables(&mut variables, add.iter().map(String::as_str))?;
        Ok(variables.into_iter().map(Value::String).collect())
    })
}

/// Removes labels by key, then adds or replaces others (SVC-45).
pub fn labels(spec: &mut Value, path: &str, add: BTreeMap<String, String>, remove: &[String]) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let labels = at(spec, path);
    if !labels.is_object() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.retain(|key, _| !remove.contains(key));
        labels.extend(add.into_iter().map(|(key, value)| (key, json!(value))));
    }
}

/// Removes and adds constraints; blanks in them mean nothing, and none is there twice (SVC-48).
pub fn constraints(spec: &mut Value, add: &[String], remove: &[String]) -> Result<()> {
    let bare = |text: &str| text.split_whitespace().collect::<String>();
    list(spec, "TaskTemplate/Placement/Constraints", |mut constraints| {
        let is = |constraint: &Value, text: &String| {
            constraint.as_str().is_some_and(|old| bare(old) == bare(text))
        };
        constraints.retain(|old| !remove.iter().any(|text| is(old, text)));
        for text in add {
            if !constraints.iter().any(|old| is(old, text)) {
                constraints.push(json!(text));
            }
        }
        Ok(constraints)
    })
}

/// Removes mounts by target, then adds others or replaces those of the same target (SVC-46).
pub fn mounts(spec: &mut Value, add: Vec<Value>, remove: &[String]) -> Result<()> {
    list(spec, "TaskTemplate/ContainerSpec/Mounts", |mut mounts| {
        mounts.retain(|old| {
            let target = &old["Target"];
            !remove.iter().any(|removed| target == removed) && !add.iter().any(|new| new["Target"] == *target)
        });
        mounts.extend(add);
        Ok(mounts)
    })
}

/// Removes ports, then adds others or replaces those that are published at the same place (PRT-10).
pub fn ports(spec: &mut Value, add: Vec<Value>, remove: impl Fn(&Value) -> bool) -> Result<()> {
    let place = |port: &Value| {
        let text = |key: &str, default: &str| port[key].as_str().unwrap_or(default).to_owned();
        let number = port["PublishedPort"].as_u64().filter(|number| *number != 0);
        number.map(|number| {
            (number, text("Protocol", "tcp"), text("PublishMode", "ingress"), text("HostIP", ""))
        })
    };
    list(spec, "EndpointSpec/Ports", |mut ports| {
        let taken: Vec<_> = add.iter().filter_map(place).collect();
        ports.retain(|old| !remove(old) && !place(old).is_some_and(|old| taken.contains(&old)));
        for port in add {
            // A port that is free anywhere is asked for once.
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        Ok(ports)
    })
}

/// Changes the list at `path`; one that is empty before and after is not made.
///
/// # Errors
/// Those of `change`.
pub fn list(
    spec: &mut Value,
    path: &str,
    change: impl FnOnce(Vec<Value>) -> Result<Vec<Value>>,
) -> Result<()> {
    let place = spec.pointer(&format!("/{path}"));
    let old = place.and_then(Value::as_array).cloned().unwrap_or_default();
    let new = change(old.clone())?;
    if new != old {
        *at(spec, path) = Value::Array(new);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// SVC-44
    #[test]
    fn variables_are_replaced_and_removed_by_name() {
        let mut spec = json!({"TaskTemplate": {"ContainerSpec": {"Env": ["A=1", "B=2", "AB=3"], "New": 1}}});
        environment(&mut spec, &texts(&["B=3", "C=4"]), &texts(&["A"])).unwrap();
        assert_eq!(
            spec,
            json!({"TaskTemplate": {"ContainerSpec": {"Env": ["B=3", "AB=3", "C=4"], "New": 1}}})
        );
    }

    /// SVC-45
    #[test]
    fn labels_are_removed_by_key() {
        let mut spec = json!({"Labels": {"a": "1", "b": "2"}});
        labels(&mut spec, "Labels", options::labels(&texts(&["b=3", "c"])).unwrap(), &texts(&["a", "x"]));
        assert_eq!(spec, json!({"Labels": {"b": "3", "c": ""}}));
        let mut untouched = json!({});
        labels(&mut untouched, "Labels", BTreeMap::new(), &[]);
        assert_eq!(untouched, json!({}));
    }

    /// SVC-48
    #[test]
    fn constraints_are_compared_without_blanks() {
        let mut spec =
            json!({"TaskTemplate": {"Placement": {"Constraints": ["node.role == worker", "node.id!=x"]}}});
        constraints(&mut spec, &texts(&["node.id != x", "node.labels.a==b"]), &texts(&["node.role==worker"]))
            .unwrap();
        assert_eq!(
            spec["TaskTemplate"]["Placement"]["Constraints"],
            json!(["node.id!=x", "node.labels.a==b"])
        );
    }

    /// SVC-46
    #[test]
    fn mounts_are_known_by_their_target() {
        let mount = |source: &str, target: &str| json!({"Type": "bind", "Source": source, "Target": target});
        let mut spec =
            json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [mount("/a", "/x"), mount("/b", "/y")]}}});
        mounts(&mut spec, vec![mount("/c", "/y")], &texts(&["/x"])).unwrap();
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Mounts"], json!([mount("/c", "/y")]));
    }

    /// PRT-10
    #[test]
    fn ports_are_known_by_where_they_are_published() {
        let port = |published: u16, target: u16| {
            json!({"Protocol": "tcp", "TargetPort": target,
            "PublishedPort": published, "PublishMode": "ingress"})
        };
        let mut spec = json!({"EndpointSpec": {"Mode": "vip", "Ports": [port(8080, 80), port(8081, 81)]}});
        ports(&mut spec, vec![port(8080, 90), port(8082, 80)], |old| old["TargetPort"] == 81).unwrap();
        assert_eq!(spec, json!({"EndpointSpec": {"Mode": "vip", "Ports": [port(8080, 90), port(8082, 80)]}}));
        let free = json!({"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"});
        let mut spec = json!({"EndpointSpec": {"Ports": [free]}});
        ports(&mut spec, vec![free.clone()], |_| false).unwrap();
        assert_eq!(spec["EndpointSpec"]["Ports"], json!([free]));
    }

    /// SVC-37, MOD-06
    #[test]
    fn only_replicated_services_have_a_number_of_tasks() {
        let mut spec = json!({"Mode": {"Replicated": {"Replicas": 1}}});
        set_replicas(&mut spec, 50).unwrap();
        assert_eq!(spec["Mode"]["Replicated"]["Replicas"], 50);
        let error = set_replicas(&mut json!({"Mode": {"Global": {}}}), 2).unwrap_err();
        assert_eq!(error.to_string(), "replicas can only be used with replicated mode");
    }

    /// SVC-47
    #[test]
    fn an_edit_of_nothing_changes_nothing() {
        let mut spec = json!({});
        environment(&mut spec, &[], &texts(&["A"])).unwrap();
        constraints(&mut spec, &[], &[]).unwrap();
        mounts(&mut spec, Vec::new(), &texts(&["/x"])).unwrap();
        assert_eq!(spec, json!({}));
    }
}
