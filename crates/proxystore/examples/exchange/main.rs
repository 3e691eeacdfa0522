//! Makes and uses objects in Rust for a program in another language, told by lines of words.
//!
//! The tests of `python/tests/exchange` talk to it: a command a line on standard input, an answer a
//! line on standard output, `ok ...` or `error KIND MESSAGE`. Objects are the samples of
//! `samples.rs`, which the other side knows too; between the programs go references alone.
//!
//! | command | answer |
//! | --- | --- |
//! | `make TYPE URL [evict] [inline] [ttl=MS] [sealed] [zstd] [lz4] [checked]` | reference of a new object in the channel |
//! | `batch TYPE URL COUNT` | references of that many, stored at once |
//! | `check TYPE REFERENCE` | `same`, or what was found instead; waits for futures |
//! | `exists REFERENCE` | `true` or `false` |
//! | `facts REFERENCE` | length, shape, type of elements and bytes, as the reference knows them |
//! | `future URL [evict] [timeout=MS] [lease=MS]` | reference of a future, held until `drop` |
//! | `set TYPE REFERENCE`, `fail REFERENCE TEXT`, `cancel REFERENCE` | sets a future made anywhere |
//! | `own TYPE URL [lease=MS]` | reference of an object whose owner is held until `drop` |
//! | `adopt TYPE REFERENCE` | nothing; the owner is held until `drop` |
//! | `give REFERENCE` | nothing; whoever adopts the object now is its owner |
//! | `drop REFERENCE` | nothing |
//! | `produce TYPE BROKER TOPIC URL COUNT` | nothing; that many objects were sent to a topic, numbered by their metadata, and its end |
//! | `consume TYPE BROKER TOPIC` | their numbers, when the topic ended; or what was found instead |

#![expect(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the elements of the arrays are any bits, the same in both languages"
)]

mod commands;
mod samples;
mod tables;

use std::io::{BufRead, Write};

fn main() -> std::io::Result<()> {
    let mut session = commands::Session::default();
    let mut to = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match session.obey(&line?) {
            Ok(answer) => writeln!(to, "ok {answer}")?,
            Err(error) => writeln!(to, "error {:?} {error}", error.kind())?,
        }
        to.flush()?;
    }
    Ok(())
}
