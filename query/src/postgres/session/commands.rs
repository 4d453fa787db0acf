//! Statements of a session: settings, transactions, cursors. Most of them have no effect that anybody else sees.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Session, Stop, Transaction, send, shown};
use crate::postgres::catalog::Catalog;
use crate::postgres::portal::{Portal, State};
use crate::postgres::refusal::{self, Refusal};
use crate::postgres::rows::Given;
use crate::postgres::settings;
use crate::postgres::statement::Command;

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<C> {
    /// Does what a statement of the session says; its tag.
    pub(super) async fn command(
        &mut self,
        command: Command,
        Portal { text, binary, memory, .. }: &Portal,
    ) -> Result<String, Stop> {
        let tag = match command {
            Command::Rows(..) => "SELECT",
            Command::Nothing(tag) => tag,
            Command::Set { name, value } => {
                match value {
                    Some(value) => {
                        let notice = self.settings.set(&name, &value)?;
                        notice.iter().for_each(|notice| self.out.notice("01000", notice));
                    }
                    None => self.settings.reset(Some(&name)),
                }
                self.changed(Some(&name));
                "SET"
            }
            Command::Reset(name) => {
                self.settings.reset(name.as_deref());
                self.changed(name.as_deref());
                "RESET"
            }
            Command::Show(name) => {
                let columns = shown(name.as_deref());
                let rows = match name {
                    Some(name) => vec![vec![self.settings.get(&name)?.into()]],
                    None => {
                        let row = |(name, value): (String, String)| vec![name.into(), value.into(), "".into()];
                        self.settings.all().into_iter().map(row).collect()
                    }
                };
                let mut given = Given::memory(self.asker.catalog.clone(), columns, rows);
                send(&mut self.interrupts, &mut self.out, &mut self.io, &mut given, binary, 0).await?;
                "SHOW"
            }
            Command::Begin { writes: true } => {
                let detail = "cannot set transaction read-write mode: only reading is possible";
                return Err(Refusal::new(refusal::READ_ONLY, detail).into());
            }
            Command::Begin { writes: false } => {
                if self.transaction != Transaction::None {
                    self.out.notice("25001", "there is already a transaction in progress");
                }
                self.transaction = Transaction::Open;
                "BEGIN"
            }
            Command::Commit | Command::Rollback => {
                let failed = self.transaction == Transaction::Failed;
                if self.transaction == Transaction::None {
                    self.out.notice(refusal::NO_TRANSACTION, "there is no transaction in progress");
                }
                self.transaction = Transaction::None;
                self.portals.over();
                if command == Command::Commit && !failed { "COMMIT" } else { "ROLLBACK" }
            }
            Command::Savepoint | Command::Release | Command::Back if self.transaction == Transaction::None => {
                let detail = "savepoints can only be used in transaction blocks";
                return Err(Refusal::new(refusal::NO_TRANSACTION, detail).into());
            }
            Command::Savepoint => "SAVEPOINT",
            Command::Release => "RELEASE",
            Command::Back => {
                self.transaction = Transaction::Open;
                "ROLLBACK"
            }
            Command::Discard { all } => {
                if all && self.transaction != Transaction::None {
                    return Err(Refusal::new("25001", "DISCARD ALL cannot run inside a transaction block").into());
                }
                if all {
                    self.settings.reset(None);
                    self.changed(None);
                    self.portals.forget(None);
                    self.portals.close(None);
                }
                if all { "DISCARD ALL" } else { "DISCARD" }
            }
            Command::Deallocate(name) => {
                if !self.portals.forget(name.as_deref()) {
                    let name = name.unwrap_or_default();
                    let detail = format!("prepared statement \"{name}\" does not exist");
                    return Err(Refusal::new(refusal::NO_STATEMENT, detail).into());
                }
                if name.is_none() { "DEALLOCATE ALL" } else { "DEALLOCATE" }
            }
            Command::Declare { name, hold, rows } => {
                if self.transaction == Transaction::None && !hold {
                    let detail = "DECLARE CURSOR can only be used in transaction blocks";
                    return Err(Refusal::new(refusal::NO_TRANSACTION, detail).into());
                }
                let state = State::Waiting(Some(*rows));
                let memory = memory.as_ref().map(|memory| memory.again(0)).transpose()?;
                let mut portal = Portal { text: text.clone(), state, binary: binary.clone(), hold, memory };
                // What is wrong with it is told now.
                Box::pin(self.columns(&mut portal)).await?;
                self.portals.open(name, portal)?;
                "DECLARE CURSOR"
            }
            Command::Fetch { name, most } => {
                let mut cursor = self.portals.take(&name)?;
                Box::pin(self.columns(&mut cursor)).await?;
                let mut rows = 0;
                if let (State::Open(given), true) = (&mut cursor.state, most != Some(0)) {
                    let most = most.unwrap_or_default();
                    let sent = send(&mut self.interrupts, &mut self.out, &mut self.io, given, binary, most).await?;
                    rows = sent.rows;
                    if sent.end {
                        cursor.state = State::Over(std::mem::take(&mut given.columns));
                    }
                }
                self.portals.back(&name, cursor);
                return Ok(format!("FETCH {rows}"));
            }
            Command::Close(name) => {
                if !self.portals.close(name.as_deref()) {
                    let name = name.unwrap_or_default();
                    return Err(Refusal::new(refusal::NO_CURSOR, format!("cursor \"{name}\" does not exist")).into());
                }
                if name.is_none() { "CLOSE CURSOR ALL" } else { "CLOSE CURSOR" }
            }
        };
        Ok(tag.to_owned())
    }

    /// A setting changed, or all of them: the client is told, and so are the catalogs.
    fn changed(&mut self, name: Option<&str>) {
        let actor = &self.asker.actor;
        self.asker.catalog = Arc::new(Catalog::new(actor.name.clone(), self.pid, self.settings.all()));
        for told in settings::TOLD.iter().filter(|told| name.is_none_or(|name| told.eq_ignore_ascii_case(name))) {
            if let (Ok(value), true) = (self.settings.get(told), *told != "session_authorization") {
                self.out.setting(told, value);
            }
        }
    }
}
