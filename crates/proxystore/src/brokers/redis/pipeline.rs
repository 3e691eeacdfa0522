//! Commands that are sent without waiting for their answers.

use std::collections::VecDeque;
use std::time::Instant;

use redis::{RedisError, RedisResult};

use super::answer::{Answer, Input};
use super::fault::{is_passing, report};
use super::link::{Link, packed, too_late};
use super::server::{Attempt, Server};
use super::socket::Limit;
use crate::error::Result;

/// So many commands, and about so many bytes of them, are under way at most.
const MOST: usize = 128;
const MOST_BYTES: usize = 1 << 20;

/// A connection, and the commands that it has not answered yet, in order: they are sent again when
/// it breaks, so they have to bear being done twice.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    link: Option<Link>,
    window: VecDeque<Vec<u8>>,
    /// Length of all of them.
    bytes: usize,
    /// How many of them this link got.
    sent: usize,
    /// Marks a command that is sent again, and may have been done before.
    pub(super) mark: Option<fn(&mut [u8])>,
    /// The first error of the server that was not reported, and the key that it is about.
    late: Option<(RedisError, String)>,
}

/// How far a look at the answers came.
enum Step {
    Done,
    Answered,
    Silent,
}

impl Pipeline {
    /// Sends a command; an error of one before may surface, and then it is not sent.
    pub(super) fn push(&mut self, attempt: &mut Attempt<'_>, command: &[&[u8]]) -> Result<()> {
        self.listen(attempt.server);
        self.report_late(attempt)?;
        if !self.is_down_to(MOST - 1) {
            self.drive(attempt, MOST - 1)?;
            self.report_late(attempt)?;
        }
        let command = packed(command);
        self.bytes += command.len();
        self.window.push_back(command);
        let outcome = self.drive(attempt, usize::MAX);
        if outcome.is_err() && self.sent < self.window.len() {
            // The caller is told that it failed, so nobody else may be told that it was published.
            self.bytes -= self.window.pop_back().map_or(0, |command| command.len());
        }
        outcome
    }

    /// Waits for all answers.
    pub(super) fn flush(&mut self, attempt: &mut Attempt<'_>) -> Result<()> {
        let outcome = self.drive(attempt, 0);
        self.report_late(attempt)?;
        outcome
    }

    /// Sends a command after all others and waits for its answer.
    pub(super) fn call(&mut self, attempt: &mut Attempt<'_>, command: &[&[u8]]) -> Result<Answer> {
        loop {
            self.drive(attempt, 0)?;
            let link = match &mut self.link {
                Some(link) => link,
                none => none.insert(attempt.connect()?),
            };
            match link.call(command, attempt.limit()).and_then(Answer::ok) {
                Ok(answer) => {
                    attempt.worked();
                    return Ok(answer);
                }
                Err(error) => {
                    if error.code().is_none() {
                        self.disconnect();
                    }
                    attempt.failed(error)?;
                }
            }
        }
    }

    /// Takes the answers that are here already.
    fn listen(&mut self, server: &Server) {
        while self.sent > 0 {
            let Some(link) = &mut self.link else { return };
            let outcome = match link.receive(Limit::at(Instant::now())) {
                Ok(None) => return,
                Ok(Some(answer)) => self.settle(answer, server),
                Err(error) => Err(error),
            };
            if outcome.is_err() {
                self.disconnect();
            }
        }
    }

    /// Sends everything, and waits for answers until so few commands are without one.
    fn drive(&mut self, attempt: &mut Attempt<'_>, most: usize) -> Result<()> {
        loop {
            if self.link.is_none() {
                if self.window.is_empty() {
                    return Ok(());
                }
                self.link = Some(attempt.connect()?);
            }
            match self.step(attempt, most) {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Answered) => attempt.worked(),
                Ok(Step::Silent) => {
                    attempt.check_open()?;
                    // When just the time is up, the answers may still come.
                    if !attempt.is_over() {
                        self.disconnect();
                    }
                    attempt.failed(too_late())?;
                }
                Err(error) => {
                    self.disconnect();
                    attempt.failed(error)?;
                }
            }
        }
    }

    fn step(&mut self, attempt: &Attempt<'_>, most: usize) -> RedisResult<Step> {
        let Some(link) = &mut self.link else { return Ok(Step::Done) };
        while let Some(command) = self.window.get(self.sent) {
            link.send(command, attempt.limit())?;
            self.sent += 1;
        }
        if self.is_down_to(most) {
            return Ok(Step::Done);
        }
        let Some(link) = &mut self.link else { return Ok(Step::Done) };
        match link.receive(attempt.limit())? {
            None => Ok(Step::Silent),
            Some(answer) => self.settle(answer, attempt.server).map(|()| Step::Answered),
        }
    }

    /// Takes the answer to the oldest command.
    fn settle(&mut self, answer: Answer, server: &Server) -> RedisResult<()> {
        let failure = answer.ok().err();
        if let Some(error) = &failure
            && is_passing(error, &server.settings.place)
        {
            return Err(error.clone());
        }
        let command = self.window.pop_front().unwrap_or_default();
        self.sent = self.sent.saturating_sub(1);
        self.bytes -= command.len();
        if let Some(error) = failure {
            self.late.get_or_insert_with(|| (error, key_of(&command)));
        }
        Ok(())
    }

    fn report_late(&mut self, attempt: &Attempt<'_>) -> Result<()> {
        match self.late.take() {
            None => Ok(()),
            Some((error, key)) => {
                let place = &attempt.server.settings.place;
                Err(report(attempt.operation, error, place).with("topic", key))
            }
        }
    }

    fn is_down_to(&self, most: usize) -> bool {
        self.window.len() <= most && (most == usize::MAX || self.bytes < MOST_BYTES)
    }

    fn disconnect(&mut self) {
        self.link = None;
        let sent = std::mem::take(&mut self.sent);
        if let Some(mark) = self.mark {
            self.window.iter_mut().take(sent).for_each(|command| mark(command));
        }
    }
}

/// The key of a command, which travels as answers do.
fn key_of(command: &[u8]) -> String {
    let mut input = Input::default();
    let _ = input.fill(command, command.len());
    let Ok(Ok(command)) = input.next() else { return String::new() };
    let mut arguments = command.list().into_iter().filter_map(Answer::bytes);
    let is_script = arguments.next().is_some_and(|name| name == b"EVAL");
    let key = if is_script { arguments.nth(2) } else { arguments.next() };
    String::from_utf8_lossy(&key.unwrap_or_default()).into_owned()
}
