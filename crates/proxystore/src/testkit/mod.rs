//! The conformance suite: the connector contract as tests, one per numbered line.
//!
//! A connector is done when it keeps every line of the contract in
//! [`connectors`](crate::connectors). A [`Fixture`] opens it; [`conformance!`](crate::conformance)
//! makes a `#[test]` of every line, and [`run_all`] runs them all for callers with another test
//! harness or another language.
//!
//! ```
//! use proxystore::connectors::memory::MemoryConnector;
//! use proxystore::connectors::{Connector, ConnectorConfig};
//! use proxystore::testkit::{self, Fixture};
//!
//! struct Memory;
//!
//! impl Fixture for Memory {
//!     fn open(&self) -> Box<dyn Connector> {
//!         let name = proxystore::key::unique_id().expect("random bytes");
//!         Box::new(MemoryConnector::new(&name).expect("a usable name"))
//!     }
//!
//!     fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
//!         Some(Box::new(MemoryConnector::open(config).expect("its own configuration")))
//!     }
//! }
//!
//! let report = testkit::run_all(&Memory);
//! assert!(report.is_kept(), "{report}");
//! ```
//!
//! The lines panic when they are broken, and so does a fixture that cannot open its connector.

pub mod brokers;
mod counting;
#[doc(hidden)]
pub mod fuzz;
mod lines;
mod steps;
mod ttl;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use counting::{Counting, Counts};
pub use lines::*;
pub use ttl::*;

use crate::connectors::{Connector, ConnectorConfig};
use crate::key::Key;

/// Opens the connector under test.
pub trait Fixture: Send + Sync {
    /// A connector to an empty channel of its own.
    fn open(&self) -> Box<dyn Connector>;

    /// Another connector to the channel that `config` leads to; `None` when the channel cannot be
    /// reached a second time, which is for connectors that live inside one object only.
    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>>;

    /// A key of the connector's kind under which nothing was ever stored.
    fn absent_key(&self) -> Key {
        Key::latest("never-stored")
    }

    /// Cuts the stored bytes of an object short behind the connector's back; false when that
    /// cannot be done.
    fn damage(&self, config: &ConnectorConfig, key: &Key) -> bool {
        let _ = (config, key);
        false
    }
}

/// A fixture whose connectors are wrapped.
pub struct Wrapped<F, W> {
    fixture: F,
    wrap: W,
}

/// The connectors of `fixture`, each passed through `wrap`.
///
/// ```
/// # use proxystore::connectors::Connector;
/// use std::sync::Arc;
/// use proxystore::testkit::{Counting, Fixture, wrapped};
///
/// fn counted(fixture: impl Fixture) -> impl Fixture {
///     wrapped(fixture, |connector| Box::new(Counting::new(connector)))
/// }
///
/// fn shared(fixture: impl Fixture) -> impl Fixture {
///     wrapped(fixture, |connector| Box::new(Arc::<dyn Connector>::from(connector)))
/// }
/// ```
pub fn wrapped<F, W>(fixture: F, wrap: W) -> Wrapped<F, W>
where
    F: Fixture,
    W: Fn(Box<dyn Connector>) -> Box<dyn Connector> + Send + Sync,
{
    Wrapped { fixture, wrap }
}

impl<F, W> Fixture for Wrapped<F, W>
where
    F: Fixture,
    W: Fn(Box<dyn Connector>) -> Box<dyn Connector> + Send + Sync,
{
    fn open(&self) -> Box<dyn Connector> {
        (self.wrap)(self.fixture.open())
    }

    fn reopen(&self, config: &ConnectorConfig) -> Option<Box<dyn Connector>> {
        self.fixture.reopen(config).map(&self.wrap)
    }

    fn absent_key(&self) -> Key {
        self.fixture.absent_key()
    }

    fn damage(&self, config: &ConnectorConfig, key: &Key) -> bool {
        self.fixture.damage(config, key)
    }
}

impl<F: fmt::Debug, W> fmt::Debug for Wrapped<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapped").field("fixture", &self.fixture).finish_non_exhaustive()
    }
}

/// What became of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The connector keeps the line.
    Kept,
    /// The line says nothing about this connector, or cannot be tried on it.
    NotApplicable(&'static str),
    /// The connector breaks the line; the text is that of the panic.
    Broken(String),
}

/// One line of the contract.
#[derive(Clone, Copy)]
pub struct Line {
    /// Its number in the contract.
    pub number: u8,
    /// Its name: that of its function.
    pub name: &'static str,
    /// Tries it; panics when it is broken.
    pub check: fn(&dyn Fixture) -> Verdict,
}

impl Line {
    /// Tries the line and turns a panic into [`Verdict::Broken`].
    pub fn verdict(&self, fixture: &dyn Fixture) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| (self.check)(fixture)))
            .unwrap_or_else(|panic| Verdict::Broken(text_of(panic.as_ref())))
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line {}: {}", self.number, self.name)
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic without a text".to_owned(),
    }
}

/// The verdicts on all lines; its text is a table with one row per line.
#[derive(Debug, Clone)]
pub struct Report {
    /// Each line with its verdict, in the order of the contract.
    pub verdicts: Vec<(Line, Verdict)>,
}

impl Report {
    /// Whether no line is broken.
    pub fn is_kept(&self) -> bool {
        !self.verdicts.iter().any(|(_, verdict)| matches!(verdict, Verdict::Broken(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, verdict) in &self.verdicts {
            write!(f, "{:>3} {}: ", line.number, line.name.replace('_', " "))?;
            match verdict {
                Verdict::Kept => writeln!(f, "kept")?,
                Verdict::NotApplicable(why) => writeln!(f, "not applicable, {why}")?,
                Verdict::Broken(how) => writeln!(f, "BROKEN, {how}")?,
            }
        }
        Ok(())
    }
}

/// Tries every line, each on channels of its own, broken ones included.
pub fn run_all(fixture: &dyn Fixture) -> Report {
    Report { verdicts: LINES.iter().map(|line| (*line, line.verdict(fixture))).collect() }
}

/// The contract, line by line: hands the list to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __with_contract_lines {
    ($then:path $(, $argument:tt)*) => {
        $then! { $($argument,)*
            1 what_was_put_is_got_back,
            2 every_put_makes_a_key_of_its_own,
            3 an_absent_key_is_none_false_and_no_error,
            4 evict_removes_that_object_and_no_other,
            5 got_bytes_are_private_to_the_caller,
            6 got_bytes_outlive_eviction_and_close,
            7 a_stored_object_never_changes,
            8 a_reader_never_sees_half_an_object,
            9 a_cut_object_is_an_error,
            10 a_range_returns_exactly_those_bytes,
            11 get_into_fills_the_callers_memory,
            12 a_batch_does_what_the_single_calls_do,
            13 a_deferred_key_is_filled_again_and_again,
            14 wait_returns_when_the_object_is_there,
            15 config_reaches_the_same_objects,
            16 a_closed_connector_refuses_every_call,
            17 all_calls_may_come_from_many_threads,
            18 an_unusable_id_is_refused,
            19 an_object_vanishes_when_its_time_has_passed,
            19 expire_renews_shortens_and_ends_times_to_live,
            19 times_to_live_may_change_while_readers_read,
        }
    };
}

macro_rules! list {
    ($($number:literal $name:ident,)*) => {
        /// All lines, in the order of the contract.
        pub static LINES: &[Line] = &[$(
            Line { number: $number, name: stringify!($name), check: $name },
        )*];
    };
}
__with_contract_lines!(list);

/// Makes a module of tests, one per line of the contract.
///
/// The fixture expression is evaluated for each test.
///
/// ```ignore
/// proxystore::conformance!(memory, MemoryFixture);
/// ```
#[macro_export]
macro_rules! conformance {
    ($module:ident, $fixture:expr) => {
        mod $module {
            #[expect(unused_imports, reason = "the fixture may need none of them")]
            use super::*;

            fn fixture() -> impl $crate::testkit::Fixture {
                $fixture
            }

            $crate::__with_contract_lines!($crate::__conformance_tests);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($($number:literal $name:ident,)*) => {$(
        #[test]
        fn $name() {
            let _ = $crate::testkit::$name(&fixture());
        }
    )*};
}
