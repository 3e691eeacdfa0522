//! An image pipeline in two processes, by value and by proxy.
//!
//! This process reads real pictures and makes a stack of raw exposures of each; a second process
//! combines them and measures the bright regions. The stacks travel first through a pipe, then by
//! proxy through shared memory, where the first process made them in place and the second maps
//! them. Both ways must find the same.
//!
//! `cargo run --release --example image_pipeline -- [FOLDER]`, where FOLDER has PNG pictures (by
//! default those of scikit-image, which `make demo` installs).
#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(clippy::cast_precision_loss, reason = "counts of exposures are small")]

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use proxystore::codec::Array;
use proxystore::store::registry;
use proxystore::{Proxy, Store, messagepack};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error>;

const PICTURES: [&str; 4] = ["moon.png", "ihc.png", "cell.png", "coffee.png"];
const SIDE: usize = 512;
const EXPOSURES: usize = 8;
const BIAS: u16 = 1000;

/// What the second process finds in one stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Findings {
    bright_pixels: usize,
    brightest: (usize, usize),
    flux: f64,
}
messagepack!(Findings);

/// What goes to the second process, and what comes back. A proxy serializes to its reference.
#[derive(Serialize, Deserialize)]
enum Message {
    StackByValue(Vec<u16>),
    StackByProxy(Proxy<Array<u16>>),
    FoundByValue(Findings),
    FoundByProxy(Proxy<Findings>),
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let outcome = match argument.as_deref() {
        Some("--worker") => worker(),
        folder => run(folder.map(PathBuf::from)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("image_pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: Option<PathBuf>) -> Result<(), Failure> {
    let folder = folder.or_else(installed_pictures).ok_or(
        "found no pictures: name a folder with moon.png and the others of scikit-image, \
         or install them with `make demo`",
    )?;
    let store = Store::open(&format!("shm://image-pipeline-{}", std::process::id()))?;
    let mut second = Peer::start()?;
    let (mut value_bytes, mut proxy_bytes) = (0, 0);
    let (mut value_time, mut proxy_time) = (Duration::ZERO, Duration::ZERO);
    for name in PICTURES {
        let scene = read_picture(&folder.join(name))?;
        let mut raw = store.empty::<u16>(&[EXPOSURES, SIDE, SIDE])?;
        observe(&scene, &mut raw);

        let started = Instant::now();
        let (answer, bytes) = second.ask(&Message::StackByValue(raw.to_vec()))?;
        let Message::FoundByValue(by_value) = answer else { return Err("an odd answer".into()) };
        value_time += started.elapsed();
        value_bytes += bytes;

        let started = Instant::now();
        let proxy = store.proxy_array(raw)?; // copies nothing: it lies in the channel
        let (answer, bytes) = second.ask(&Message::StackByProxy(proxy))?;
        let Message::FoundByProxy(found) = answer else { return Err("an odd answer".into()) };
        let by_proxy = found.resolve()?;
        proxy_time += started.elapsed();
        proxy_bytes += bytes;

        if by_value != *by_proxy {
            return Err(format!("{name}: the two ways differ").into());
        }
        println!(
            "{name:12} {:6} bright pixels, flux {:.4e}, brightest at {:?}: the same both ways",
            by_value.bright_pixels, by_value.flux, by_value.brightest
        );
    }
    println!("\nby value: {value_bytes:9} bytes through the pipe, {value_time:.1?}");
    println!("by proxy: {proxy_bytes:9} bytes through the pipe, {proxy_time:.1?}");
    second.stop()?;
    store.close(true)?;
    Ok(())
}

/// The second process: analyses what it is sent until the pipe closes.
fn worker() -> Result<(), Failure> {
    let (mut from, mut to) = (std::io::stdin().lock(), std::io::stdout().lock());
    while let Some(message) = receive(&mut from)? {
        let answer = match message {
            Message::StackByValue(stack) => Message::FoundByValue(analyse(&stack)),
            Message::StackByProxy(stack) => {
                let found = analyse(stack.resolve()?);
                // The answer goes into the store that the stack came from.
                let store = registry::get_or_open(&stack.reference()?.store)?;
                Message::FoundByProxy(store.proxy(found)?)
            }
            Message::FoundByValue(_) | Message::FoundByProxy(_) => return Err("no work".into()),
        };
        send(&mut to, &answer)?;
    }
    Ok(())
}

// The analysis: takes a slice, and knows nothing of proxies.

fn analyse(stack: &[u16]) -> Findings {
    let mut image = vec![0_f32; SIDE * SIDE];
    for (index, pixel) in image.iter_mut().enumerate() {
        let (mut sum, mut low, mut high) = (0_f32, f32::MAX, f32::MIN);
        for exposure in stack.chunks_exact(SIDE * SIDE) {
            let light = f32::from(exposure[index]) - f32::from(BIAS);
            sum += light;
            low = low.min(light);
            high = high.max(light); // a cosmic ray hits one exposure only
        }
        *pixel = (sum - low - high) / (EXPOSURES - 2) as f32;
    }
    let mut sorted = image.clone();
    sorted.sort_by(f32::total_cmp);
    let (median, threshold) = (sorted[sorted.len() / 2], sorted[sorted.len() * 84 / 100]);
    let brightest = image.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let brightest = brightest.map_or(0, |(index, _)| index);
    let bright = image.iter().filter(|light| **light > threshold);
    Findings {
        bright_pixels: bright.clone().count(),
        brightest: (brightest / SIDE, brightest % SIDE),
        flux: bright.map(|light| f64::from(*light - median)).sum(),
    }
}

// The observations.

fn installed_pictures() -> Option<PathBuf> {
    let libraries = std::fs::read_dir(".venv/lib").ok()?;
    libraries
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/skimage/data")))
        .find(|folder| folder.join(PICTURES[0]).exists())
}

/// The upper left corner of a picture, as brightness from 0 to 255; small pictures repeat.
fn read_picture(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("the picture is too large")?];
    let info = reader.next_frame(&mut pixels)?;
    let (width, height) = (info.width as usize, info.height as usize);
    let channels = info.color_type.samples();
    let colors = if channels >= 3 { 3 } else { 1 };
    let mut scene = vec![0; SIDE * SIDE];
    for (index, target) in scene.iter_mut().enumerate() {
        let (y, x) = ((index / SIDE) % height, (index % SIDE) % width);
        let pixel = &pixels[(y * width + x) * channels..][..colors];
        *target = (pixel.iter().map(|c| usize::from(*c)).sum::<usize>() / colors) as u8;
    }
    Ok(scene)
}

/// Raw exposures of a scene: bias, noise and cosmic rays from a small generator of numbers.
fn observe(scene: &[u8], stack: &mut [u16]) {
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u16
    };
    for (index, pixel) in stack.iter_mut().enumerate() {
        let noise = random() % 64;
        let ray = if random() % 4096 == 0 { 20_000 } else { 0 };
        *pixel = BIAS + u16::from(scene[index % scene.len()]) * 40 + noise + ray;
    }
}

// The pipe between the processes: a length, then MessagePack.

struct Peer {
    process: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Peer {
    fn start() -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = process.stdin.take().ok_or("no pipe")?;
        let from = process.stdout.take().ok_or("no pipe")?;
        Ok(Self { process, to, from })
    }

    fn ask(&mut self, message: &Message) -> Result<(Message, usize), Failure> {
        let bytes = send(&mut self.to, message)?;
        let answer = receive(&mut self.from)?.ok_or("the second process ended")?;
        Ok((answer, bytes))
    }

    fn stop(mut self) -> Result<(), Failure> {
        drop(self.to);
        if self.process.wait()?.success() { Ok(()) } else { Err("the worker failed".into()) }
    }
}

fn send(to: &mut impl Write, message: &Message) -> Result<usize, Failure> {
    let bytes = rmp_serde::to_vec(message)?;
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()?;
    Ok(bytes.len())
}

fn receive(from: &mut impl Read) -> Result<Option<Message>, Failure> {
    let mut length = [0; 8];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some(rmp_serde::from_slice(&bytes)?))
}
