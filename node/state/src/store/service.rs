//! Commands on services: names, versions, what counts as a change.

use std::sync::Arc;

use super::{Entry, check_version, not_found};
use crate::{
    Id, Version,
    command::Refusal,
    event::{Change, Event},
    service::{Service, ServiceSpec, UpdateStatus},
    task::DesiredState,
};

impl Entry {
    pub(super) fn create_service(&mut self, id: Id, spec: &ServiceSpec) -> Result<(), Refusal> {
        // Tasks of a removed service live a little longer; another service must not inherit them.
        if self.store.services.contains_key(&id) || self.store.tasks_of_service(id).next().is_some() {
            return Err(Refusal::Invalid(format!("service {id} exists already")));
        }
        spec.check().map_err(|error| Refusal::Invalid(error.to_string()))?;
        if self.store.service_names.contains_key(&spec.name) {
            return Err(Refusal::NameInUse { kind: "service".to_owned(), name: spec.name.clone() });
        }
        let service = Service {
            id,
            version: self.index,
            created_at: self.at,
            updated_at: self.at,
            spec: spec.clone(),
            spec_version: self.index,
            previous_spec: None,
            update_status: None,
            edge: self.store.has_edge(spec),
            exposure: self.expose(spec, None)?,
        };
        self.store.index_service(&service);
        self.store.task_specs.insert_mut(id, Arc::new(spec.task.clone()));
        self.put_service(service, Change::Created);
        Ok(())
    }

    pub(super) fn update_service(
        &mut self,
        id: Id,
        version: Version,
        spec: &ServiceSpec,
    ) -> Result<(), Refusal> {
        let mut service = self.service(id)?;
        check_version(version, service.version)?;
        // Nobody can have read what this very entry wrote; and a spec version stands for one task spec only.
        if service.version == self.index {
            return Err(Refusal::OutOfSequence);
        }
        check_update(&service.spec, spec)?;
        if service.spec != *spec {
            self.store.unindex_service(&service);
            service.exposure = self.expose(spec, Some(&service))?;
            // A container cannot take another port of its host, nor an interface at the edge, while it runs; ingress
            // ports are none of its business.
            let same_ports = service.spec.endpoint.host_ports().eq(spec.endpoint.host_ports());
            let edge = std::mem::replace(&mut service.edge, self.store.has_edge(spec));
            if service.spec.task != spec.task || !same_ports || service.edge != edge {
                service.spec_version = self.index;
            }
            if service.spec.task != spec.task {
                self.store.task_specs.insert_mut(id, Arc::new(spec.task.clone()));
            }
            service.previous_spec = Some(Box::new(std::mem::replace(&mut service.spec, spec.clone())));
            self.store.index_service(&service);
        }
        service.update_status = None;
        self.put_service(service, Change::Updated);
        Ok(())
    }

    pub(super) fn set_update_status(&mut self, id: Id, status: Option<&UpdateStatus>) -> Result<(), Refusal> {
        let mut service = self.service(id)?;
        if service.update_status.as_ref() != status {
            service.update_status = status.cloned();
            self.put_service(service, Change::Updated);
        }
        Ok(())
    }

    pub(super) fn remove_service(&mut self, id: Id) -> Result<(), Refusal> {
        let service = self.service(id)?;
        let tasks: Vec<Id> = self.store.tasks_of_service(id).map(|task| task.id).collect();
        for task in tasks {
            self.set_task_desired(task, DesiredState::Remove)?;
        }
        for vip in &service.exposure.vips {
            self.free_addresses(vip.network, &vip.addresses);
        }
        self.store.unindex_service(&service);
        self.store.services.remove_mut(&id);
        self.store.task_specs.remove_mut(&id);
        self.events.push(Event::Service(id, Change::Removed));
        Ok(())
    }

    /// A copy of the service to change.
    pub(super) fn service(&self, id: Id) -> Result<Service, Refusal> {
        self.store.service(id).map(|service| (**service).clone()).ok_or_else(|| not_found("service", id))
    }

    fn put_service(&mut self, mut service: Service, change: Change) {
        service.version = self.index;
        service.updated_at = self.at;
        self.events.push(Event::Service(service.id, change));
        self.store.services.insert_mut(service.id, Arc::new(service));
    }
}

fn check_update(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), Refusal> {
    if old.name != new.name {
        return Err(Refusal::Invalid("renaming services is not supported".to_owned()));
    }
    if std::mem::discriminant(&old.mode) != std::mem::discriminant(&new.mode) {
        return Err(Refusal::Invalid("service mode change is not allowed".to_owned()));
    }
    new.check().map_err(|error| Refusal::Invalid(error.to_string()))
}
