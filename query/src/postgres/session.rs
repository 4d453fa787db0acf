//! A session: messages in, answers out, one after the other.
//!
//! ```text
//! reader ─► messages that wait (bounded in bytes) ─► session ─► out
//!    └─ the client left ─► what runs ends
//! ```
//! What runs ends when the client leaves or cancels it, its token ends, the process stops, or its time is over. After an error
//! in the extended protocol everything is passed over until the client synchronises.

mod commands;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::actor::{Actor, Grant};
use crate::error::OVER;
use crate::postgres::Shared;
use crate::postgres::catalog::{Catalog, Column};
use crate::postgres::kinds::TEXT;
use crate::postgres::limits::{Asked, Session as Seat};
use crate::postgres::portal::{Portal, Portals, Prepared, State};
use crate::postgres::refusal::{self, Refusal};
use crate::postgres::rows::{Asker, CHUNK, Given, Sent, wants};
use crate::postgres::settings::{self, Settings};
use crate::postgres::statement::{self, Command};
use crate::postgres::wire::{self, Bind, MAX_MESSAGE, Message, Out, Target};

/// Bytes of messages that may wait for a session.
const AHEAD: usize = 2 * MAX_MESSAGE;
/// Messages that may wait for a session.
const MESSAGES_AHEAD: usize = 256;
/// What a message takes at least, bytes.
const LEAST_MESSAGE: usize = 64;
/// How long a session may be idle.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(3600);
/// How long an answer may wait for the client to take it.
const STALLED: Duration = Duration::from_secs(60);

/// Why a session does not go on with what it does.
enum Stop {
    /// The statement is refused; the session goes on.
    Refused(Refusal),
    /// The session ends, and the client is told why.
    Ends(Refusal),
    /// Nobody is there.
    Gone,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

/// Whether a session is in a transaction, as the protocol says it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None = b'I' as isize,
    Open = b'T' as isize,
    Failed = b'E' as isize,
}

/// A message that waits: its letter, what it says, and its place among those that wait.
struct Waiting {
    letter: u8,
    message: Result<(Message, Asked), Refusal>,
    _place: OwnedSemaphorePermit,
}

/// What ends what runs.
struct Interrupts {
    cancelled: watch::Receiver<()>,
    left: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
    grant: Grant,
    until: Option<Instant>,
}

impl Interrupts {
    /// Something to be done until it has to end.
    async fn run<T>(&mut self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Stop> {
        let over = async {
            match self.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.left.wait_for(|left| *left) => Err(Stop::Gone),
            _ = self.stopping.wait_for(|stopping| *stopping) => Err(stops()),
            () = self.grant.ended() => Err(Stop::Ends(Refusal::new(refusal::ENDED, OVER))),
            _ = self.cancelled.changed() => {
                Err(Refusal::new(refusal::CANCELLED, "canceling statement due to user request").into())
            }
            () = over => Err(Refusal::new(refusal::CANCELLED, "canceling statement due to statement timeout").into()),
            done = work => done.map_err(Stop::Refused),
        }
    }
}

fn stops() -> Stop {
    Stop::Ends(Refusal::new(refusal::ENDED, "the process is stopping"))
}

/// A session.
pub(crate) struct Session<C> {
    shared: Arc<Shared>,
    asker: Asker,
    settings: Settings,
    pid: i32,
    interrupts: Interrupts,
    io: WriteHalf<C>,
    out: Out,
    portals: Portals,
    transaction: Transaction,
    /// An error was told, and the client has not synchronised.
    skipping: bool,
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<C> {
    /// Serves a client who was let in, until the connection ends.
    pub(crate) async fn run(
        shared: Arc<Shared>,
        actor: Actor,
        settings: Settings,
        notices: &[String],
        seat: Seat,
        io: C,
    ) {
        let (read, write) = tokio::io::split(io);
        let (pid, key, cancelled) = shared.enter();
        let (gone, left) = watch::channel(false);
        let (to, mut messages) = mpsc::channel(MESSAGES_AHEAD);
        let room = seat.room();
        let reader = tokio::spawn(async move {
            // How it ended makes no difference: nothing more comes.
            let _ = listen(read, &room, &to).await;
            gone.send_replace(true);
        });
        let stopping = shared.stopping.clone();
        let interrupts = Interrupts { cancelled, left, stopping, grant: actor.grant.clone(), until: None };
        let catalog = Arc::new(Catalog::new(actor.name.clone(), pid, settings.all()));
        let asker = Asker { engine: shared.engine.clone(), actor, catalog, room: seat.room() };
        let mut session = Session {
            shared: shared.clone(),
            asker,
            settings,
            pid,
            interrupts,
            io: write,
            out: Out::default(),
            portals: Portals::default(),
            transaction: Transaction::None,
            skipping: false,
        };
        session.greet(key, notices);
        if let Err(Stop::Ends(refusal) | Stop::Refused(refusal)) = session.converse(&mut messages).await {
            session.out.refuse(&refusal, "", true);
            let _ = session.flush().await;
        }
        session.portals = Portals::default();
        shared.leave(pid);
        reader.abort();
        // Who does not read is not waited for.
        let _ = timeout(STALLED, session.io.shutdown()).await;
    }

    fn greet(&mut self, key: i32, notices: &[String]) {
        self.out.authentication(0);
        for name in settings::TOLD {
            let value = match *name {
                "session_authorization" => &self.asker.actor.name,
                name => self.settings.get(name).unwrap_or_default(),
            };
            self.out.setting(name, value);
        }
        self.out.key(self.pid, key);
        notices.iter().for_each(|notice| self.out.notice("01000", notice));
        self.out.ready(b'I');
    }

    async fn converse(&mut self, messages: &mut mpsc::Receiver<Waiting>) -> Result<(), Stop> {
        loop {
            // What is in between goes with what follows it, unless nothing does.
            if messages.is_empty() || self.out.0.len() >= CHUNK {
                self.flush().await?;
            }
            let next = tokio::select! {
                biased;
                _ = self.interrupts.stopping.wait_for(|stopping| *stopping) => return Err(stops()),
                () = self.interrupts.grant.ended() => return Err(Stop::Ends(Refusal::new(refusal::ENDED, OVER))),
                next = messages.recv() => next,
                () = sleep(IDLE_LIMIT) => {
                    let detail = "terminating connection due to idle-session timeout";
                    return Err(Stop::Ends(Refusal::new(refusal::IDLE, detail)));
                }
            };
            let Some(Waiting { letter, message, _place }) = next else { return Err(Stop::Gone) };
            self.begin();
            let done = match message {
                Ok((Message::Terminate, _)) => return Err(Stop::Gone),
                Ok((Message::Query(text), memory)) => {
                    self.skipping = false;
                    self.simple(&text, &memory).await
                }
                Ok((Message::Sync, _)) => {
                    self.skipping = false;
                    self.ready();
                    Ok(())
                }
                Ok((Message::Flush, _)) => self.flush().await,
                Ok(_) if self.skipping => Ok(()),
                Ok((message, memory)) => self.extended(message, memory).await,
                Err(refusal) if refusal.code == refusal::PROTOCOL => Err(Stop::Ends(refusal)),
                Err(refusal) if letter == b'Q' => {
                    self.fail(&refusal, "");
                    self.ready();
                    Ok(())
                }
                Err(_) if self.skipping => Ok(()),
                Err(refusal) => Err(Stop::Refused(refusal)),
            };
            match done {
                Ok(()) => {}
                Err(Stop::Refused(refusal)) => {
                    // Places are those of a text of one line.
                    self.fail(&refusal, "");
                    self.skipping = true;
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Something begins that may be cancelled, and takes no longer than was set.
    fn begin(&mut self) {
        self.interrupts.cancelled.mark_unchanged();
        let limit = self.settings.get("statement_timeout").ok().and_then(duration);
        self.interrupts.until = limit.map(|limit| Instant::now() + limit);
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        if self.out.0.is_empty() {
            return Ok(());
        }
        let write = async {
            self.io.write_all(&self.out.0).await?;
            self.io.flush().await
        };
        match timeout(STALLED, write).await {
            Ok(Ok(())) => {
                self.out.0.clear();
                self.out.0.shrink_to(4 * CHUNK);
                Ok(())
            }
            _ => {
                self.out.0.clear();
                Err(Stop::Gone)
            }
        }
    }

    fn ready(&mut self) {
        if self.transaction == Transaction::None {
            self.portals.over();
        }
        self.out.ready(self.transaction as isize as u8);
    }

    fn fail(&mut self, refusal: &Refusal, text: &str) {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
        self.out.refuse(refusal, text, false);
    }

    /// Statements of one text, each answered at once.
    async fn simple(&mut self, text: &str, memory: &Asked) -> Result<(), Stop> {
        match statement::parse(text) {
            Err(refusal) => self.fail(&refusal, text),
            Ok(statements) if statements.is_empty() => self.out.bare(b'I'),
            Ok(statements) => {
                for statement in statements {
                    let done = match Command::of(statement) {
                        Ok(command) => self.answer(command, text, memory).await,
                        Err(refusal) => Err(Stop::Refused(refusal)),
                    };
                    match done {
                        Ok(()) => {}
                        Err(Stop::Refused(refusal)) => {
                            self.fail(&refusal, text);
                            break;
                        }
                        Err(stop) => return Err(stop),
                    }
                }
            }
        }
        self.ready();
        self.flush().await
    }

    async fn answer(&mut self, command: Command, text: &str, memory: &Asked) -> Result<(), Stop> {
        if let Command::Rows(statement, _) = &command
            && crate::postgres::parameters::count(statement)? > 0
        {
            return Err(Refusal::new("42P02", "there is no parameter $1").into());
        }
        let state = State::Waiting(Some(command));
        let memory = Some(memory.again(0)?);
        let mut portal = Portal { text: text.into(), state, binary: Vec::new(), hold: false, memory };
        if let Some(columns) = self.columns(&mut portal).await? {
            self.out.columns(&columns, |_| false);
        }
        self.execute(&mut portal, 0).await
    }

    /// Messages of the extended protocol.
    async fn extended(&mut self, message: Message, memory: Asked) -> Result<(), Stop> {
        match message {
            Message::Parse { name, text, kinds } => {
                let at = text.clone();
                let prepared = Prepared::new(text, kinds);
                let prepared = prepared
                    .and_then(|prepared| self.portals.prepare(name, Prepared { memory: Some(memory), ..prepared }));
                self.told(prepared, &at)?;
                self.out.bare(b'1');
            }
            Message::Bind(bind) => {
                self.bind(&bind).await?;
                self.out.bare(b'2');
            }
            Message::Describe(Target::Statement(name)) => {
                let (columns, kinds) = self.shape(&name).await?;
                self.out.parameters(&kinds);
                match columns {
                    Some(columns) => self.out.columns(&columns, |_| false),
                    None => self.out.bare(b'n'),
                }
            }
            Message::Describe(Target::Portal(name)) => {
                let mut portal = self.portals.take(&name)?;
                match self.columns(&mut portal).await? {
                    Some(columns) => self.out.columns(&columns, |at| wants(&portal.binary, at)),
                    None => self.out.bare(b'n'),
                }
                self.portals.back(&name, portal);
            }
            Message::Execute { portal: name, most } => {
                let mut portal = self.portals.take(&name)?;
                self.execute(&mut portal, most).await?;
                self.portals.back(&name, portal);
            }
            Message::Close(target) => {
                match target {
                    Target::Statement(name) => self.portals.forget(Some(&name)),
                    Target::Portal(name) => self.portals.close(Some(&name)),
                };
                self.out.bare(b'3');
            }
            Message::Copied => {}
            _ => return Err(Refusal::new(refusal::PROTOCOL, "this message is not expected here").into()),
        }
        Ok(())
    }

    /// An error with its place in a text is told here: whoever hears of it later does not know the text.
    fn told(&mut self, done: Result<(), Refusal>, text: &str) -> Result<(), Stop> {
        done.map_err(|refusal| {
            let place = refusal.position(text).map(|at| (1, at as u64));
            Stop::Refused(Refusal { place, ..refusal })
        })
    }

    async fn bind(&mut self, bind: &Bind) -> Result<(), Stop> {
        if self.portals.statement(&bind.statement)?.needs_shape(bind) {
            self.shape(&bind.statement).await?;
        }
        let prepared = self.portals.statement(&bind.statement)?;
        let portal = prepared.bound(bind)?;
        self.portals.open(bind.portal.clone(), portal)?;
        Ok(())
    }

    /// The columns of a prepared statement, where it gives rows, and the types of its parameters.
    async fn shape(&mut self, name: &str) -> Result<(Option<Vec<Column>>, Vec<u32>), Stop> {
        let prepared = self.portals.statement(name)?;
        match &prepared.command {
            Some(Command::Rows(statement, from)) => {
                if prepared.shape.is_none() {
                    let shape = self.asker.shape(statement, *from, &prepared.kinds, &prepared.text);
                    let shape = self.interrupts.run(shape).await;
                    let text = prepared.text.clone();
                    let shape = match shape {
                        Err(Stop::Refused(refusal)) => {
                            return Err(self.told(Err(refusal), &text).err().unwrap_or(Stop::Gone));
                        }
                        shape => shape?,
                    };
                    self.portals.statement(name)?.shape = Some(shape);
                }
                let shape = self.portals.statement(name)?.shape.clone();
                Ok(shape.map_or((None, Vec::new()), |(columns, kinds)| (Some(columns), kinds)))
            }
            Some(Command::Show(setting)) => Ok((Some(shown(setting.as_deref())), Vec::new())),
            Some(Command::Fetch { name, .. }) => {
                let name = name.clone();
                let mut cursor = self.portals.take(&name)?;
                let columns = Box::pin(self.columns(&mut cursor)).await;
                self.portals.back(&name, cursor);
                Ok((columns?, Vec::new()))
            }
            _ => Ok((None, prepared.kinds.clone())),
        }
    }

    /// The columns of a portal, where it gives rows: it is opened for this.
    async fn columns(&mut self, portal: &mut Portal) -> Result<Option<Vec<Column>>, Stop> {
        let command = match &portal.state {
            State::Open(given) => return Ok(Some(given.columns.clone())),
            State::Over(columns) => return Ok(Some(columns.clone())),
            State::Waiting(None) => return Ok(None),
            State::Waiting(Some(command)) => command,
        };
        if self.transaction == Transaction::Failed && !command.ends_failure() {
            let detail = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Refusal::new(refusal::FAILED_TRANSACTION, detail).into());
        }
        match command {
            Command::Rows(statement, from) => {
                self.shared.limits.metrics.statements.inc();
                let rows = self.asker.rows(statement, *from, &portal.text);
                let given = match self.interrupts.run(rows).await {
                    Err(Stop::Refused(refusal)) => {
                        let text = portal.text.clone();
                        return Err(self.told(Err(refusal), &text).err().unwrap_or(Stop::Gone));
                    }
                    given => given?,
                };
                let columns = given.columns.clone();
                portal.state = State::Open(given);
                Ok(Some(columns))
            }
            Command::Show(setting) => Ok(Some(shown(setting.as_deref()))),
            Command::Fetch { name, .. } => {
                let name = name.clone();
                let mut cursor = self.portals.take(&name)?;
                let columns = Box::pin(self.columns(&mut cursor)).await;
                self.portals.back(&name, cursor);
                columns
            }
            _ => Ok(None),
        }
    }

    /// Gives rows of a portal, not more than `most` where that is not 0; or does what it says.
    async fn execute(&mut self, portal: &mut Portal, most: usize) -> Result<(), Stop> {
        self.columns(portal).await?;
        match &mut portal.state {
            State::Over(_) => self.out.complete("SELECT 0"),
            State::Open(given) => {
                let sent = send(&mut self.interrupts, &mut self.out, &mut self.io, given, &portal.binary, most).await?;
                if sent.end {
                    let columns = std::mem::take(&mut given.columns);
                    portal.state = State::Over(columns);
                    self.out.complete(&format!("SELECT {}", sent.rows));
                } else {
                    self.out.bare(b's');
                }
            }
            State::Waiting(None) => self.out.bare(b'I'),
            State::Waiting(Some(command)) => {
                let command = command.clone();
                let tag = self.command(command, portal).await?;
                self.out.complete(&tag);
            }
        }
        Ok(())
    }
}

/// The columns of what is shown: one setting, or all of them.
fn shown(name: Option<&str>) -> Vec<Column> {
    let column = |name: &str| Column { name: name.to_owned(), kind: TEXT };
    match name {
        Some(name) => vec![column(settings::known(name).map_or(name, |known| known.name))],
        None => ["name", "setting", "description"].map(column).into(),
    }
}

/// Sends rows, all of them where `most` is 0.
async fn send<C: AsyncWrite>(
    interrupts: &mut Interrupts,
    out: &mut Out,
    io: &mut WriteHalf<C>,
    given: &mut Given,
    binary: &[bool],
    most: usize,
) -> Result<Sent, Stop> {
    let most = if most == 0 { usize::MAX } else { most };
    let mut rows = 0;
    loop {
        let sent = interrupts.run(given.write(out, binary, most - rows)).await?;
        rows += sent.rows;
        if sent.end || rows >= most {
            return Ok(Sent { rows, end: sent.end });
        }
        match timeout(STALLED, io.write_all(&out.0)).await {
            Ok(Ok(())) => out.0.clear(),
            _ => return Err(Stop::Gone),
        }
    }
}

/// A span as a setting says it: milliseconds where no unit is said; none where it is 0.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let n: u64 = text[..digits].parse().ok()?;
    let span = match text[digits..].trim() {
        "" | "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        "min" => Duration::from_secs(n.checked_mul(60)?),
        "h" => Duration::from_secs(n.checked_mul(3600)?),
        _ => return None,
    };
    // Longer than anything lasts.
    (n > 0 && span < Duration::from_secs(1 << 32)).then_some(span)
}

/// Reads messages as long as the client says any.
async fn listen<C: AsyncRead>(mut io: ReadHalf<C>, room: &Asked, to: &mpsc::Sender<Waiting>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(AHEAD));
    while let Some(head) = wire::head(&mut io, MAX_MESSAGE).await? {
        let len = head.as_ref().map_or(0, |(_, len)| *len);
        let wanted = u32::try_from(len.max(LEAST_MESSAGE)).unwrap_or(u32::MAX);
        let place = places.clone().acquire_many_owned(wanted).await.map_err(io::Error::other)?;
        let (letter, message) = match head {
            Err(refusal) => (0, Err(refusal)),
            // What ends and synchronises needs no room: it would be missed.
            Ok((letter, 0)) => (letter, Message::of(letter, &[]).map(|message| (message, room.nothing()))),
            Ok((letter, len)) => match room.message(letter, len) {
                Ok(memory) => {
                    let mut body = vec![0; len];
                    io.read_exact(&mut body).await?;
                    (letter, Message::of(letter, &body).map(|message| (message, memory)))
                }
                Err(refusal) => {
                    // It is passed over, as nothing else can be done with it.
                    tokio::io::copy(&mut (&mut io).take(len as u64), &mut tokio::io::sink()).await?;
                    (letter, Err(refusal))
                }
            },
        };
        let last = match &message {
            Ok((message, _)) => *message == Message::Terminate,
            Err(refusal) => refusal.code == refusal::PROTOCOL,
        };
        let leaves = last && message.is_ok();
        if leaves || to.send(Waiting { letter, message, _place: place }).await.is_err() {
            return Ok(());
        }
        if last {
            // The client may read why before it is left.
            return std::future::pending().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        let s = Duration::from_secs;
        for (text, is) in
            [("0", None), ("250", Some(s(1) / 4)), ("5s", Some(s(5))), ("2 min", Some(s(120))), ("x", None)]
        {
            assert_eq!(duration(text), is, "{text}");
        }
        assert_eq!(duration("99999999999999999999"), None);
    }
}
