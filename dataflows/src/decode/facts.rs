//! Facts of a frame, each to whom it concerns: what tells how the rest is read, to the decoder itself; what stands, to
//! [`crate::facts`]; what happens once, to the part that it is an event of. Every worker is told; the first one says it.

use std::sync::Arc;

use bytes::Bytes;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Audited, Fact, RunDecision};
use radarflow_proto::rows::Audit;
use radarflow_reconcile::identity::sources;

use super::{At, Decoder};
use crate::alerts::{AlertEvent, AlertKey, AlertStep, GroupEvent, GroupKey, LetterEvent, LetterKey, Settled};
use crate::facts::StandingFact;
use crate::keyed::Keyed;
use crate::listings::{ListingEvent, ListingKey};
use crate::{resources, steps};

impl Decoder {
    pub(super) fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Instance { tenant, kind, instance, legacy } => {
                self.instances.note(tenant, *kind, instance, *legacy);
            }
            Fact::PartialSource { tenant, kind, instance, partial } => {
                let source = (tenant.clone(), *kind, instance.clone());
                if *partial {
                    self.partial.insert(source)
                } else {
                    self.partial.remove(&source)
                };
            }
            Fact::FlowTables { tables } => self.enrichment.learn(tables),
            _ => {}
        }
    }

    pub(super) fn fact(&mut self, at: &At<'_>, body: &Bytes, fact: &Result<Arc<Fact>, String>) {
        let fact = match fact {
            Ok(fact) => fact,
            Err(reason) => {
                if self.index == 0 {
                    self.refuse(at, None, body, reason);
                }
                return;
            }
        };
        self.note(fact);
        if self.index != 0 {
            return;
        }
        let position = at.order;
        if let Fact::Command(command) = &**fact
            && command.tenant != at.origin.tenant
        {
            self.refuse(at, None, body, "a command of another tenant");
            return;
        }
        if let Some(command) = resources::stated(fact) {
            self.out.commands.push(Keyed { position, ..command });
            return;
        }
        if let Some(audited) = fact.audited() {
            self.audit(at, audited);
        }
        match &**fact {
            Fact::AlertStep { tenant, alert_id, to, until_ms, actor, reason, command_id } => {
                let step = AlertStep {
                    alert_id: alert_id.clone(),
                    to: Some(*to),
                    until_ms: *until_ms,
                    actor: actor.name.clone(),
                    reason: reason.clone(),
                    command_id: command_id.clone(),
                };
                let key = AlertKey::of_alert(tenant, alert_id);
                self.out.steps.push(Keyed { key, position, event: AlertEvent::Step(step) });
            }
            Fact::AlertComment { tenant, alert_id, actor, text, command_id } => {
                let step = AlertStep {
                    alert_id: alert_id.clone(),
                    to: None,
                    until_ms: None,
                    actor: actor.name.clone(),
                    reason: text.clone(),
                    command_id: command_id.clone(),
                };
                let key = AlertKey::of_alert(tenant, alert_id);
                self.out.steps.push(Keyed { key, position, event: AlertEvent::Step(step) });
            }
            Fact::Replay { tenant, receiver, command_id, .. } => {
                let key = LetterKey { tenant: tenant.clone(), receiver: receiver.clone() };
                self.out.replays.push(Keyed { key, position, event: LetterEvent::Replay(command_id.clone()) });
            }
            Fact::Delivery { tenant, receiver, group_key, notification_id, delivered, detail } => {
                let key = GroupKey { tenant: tenant.clone(), receiver: receiver.clone(), group: group_key.clone() };
                let (id, delivered, detail) = (notification_id.clone(), *delivered, detail.clone());
                let event = GroupEvent::Settled(Settled { id, delivered, detail });
                self.out.deliveries.push(Keyed { key, position, event });
            }
            Fact::RunDecision(decision) => {
                let RunDecision { tenant, kind, instance, .. } = decision.clone();
                let key = ListingKey { tenant, kind, instance };
                self.out.listed.push(Keyed { key, position, event: ListingEvent::Decide(decision.clone()) });
            }
            Fact::DeviceStep(step) => {
                let key = steps::anchor(step);
                self.out.device_steps.push(Keyed { key, position, event: (position, step.clone()) });
            }
            Fact::Reaped { records, .. } => {
                for (key, partition) in records {
                    self.sighting(at, &sources::gone(key, partition, at.received_us), "");
                }
            }
            stands => {
                if let Some(key) = stands.subject() {
                    let event = StandingFact::new(body, fact.clone());
                    self.out.facts.push(Keyed { key, position, event });
                }
            }
        }
    }

    pub(super) fn audit(&mut self, at: &At<'_>, audited: Audited) {
        let tenant = audited.tenant.unwrap_or_else(|| at.origin.tenant.clone());
        let row = Audit {
            tenant_id: tenant.clone(),
            partition: "default".to_owned(),
            row_id: at.row_id(0),
            epoch: at.epoch as i64,
            time: Time(at.received_us),
            actor: audited.actor.unwrap_or_else(|| at.origin.feed.clone()),
            action: audited.action,
            subject: audited.subject,
            reason: audited.reason,
            detail: audited.detail,
            sequence: None,
            previous: None,
            hash: None,
        };
        self.out.audited.push(Keyed { key: tenant, position: at.order, event: row.into() });
    }
}
