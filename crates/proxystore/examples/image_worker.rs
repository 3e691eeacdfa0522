//! A worker that serves tasks of a program in another language (`examples/rust_worker.py`).
//!
//! The program puts a stack of images into shared memory, and sends a task a line: the reference of
//! the stack, the number of an image, the reference of a future. The worker maps the stack, finds
//! the bright spots of that image, and sets the future to a table of them, or to an error. Its own
//! output is a line per task for whoever shows progress: `done IMAGE FILE`, where FILE is what the
//! image was mapped from, or `failed IMAGE`. It ends when its input does.
//!
//! Without `--serve` it makes a stack itself, and analyses that.
#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(clippy::cast_precision_loss, reason = "images have fewer than 2^53 pixels")]

use std::io::{BufRead, Write};
use std::process::ExitCode;

use ndarray::{Array2, ArrayView2, Axis, Ix3};
use proxystore::codec::{Array, Element};
use proxystore::patterns::Future;
use proxystore::{Error, ErrorKind, Proxy, Reference, Result, Store};

/// Of each spot: `y`, `x`, `pixels`, `flux`; and the `background` and `threshold` of its image.
type Spots = Array2<f64>;
const COLUMNS: usize = 6;

/// Smaller spots are noise.
const SMALLEST: usize = 4;

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("--serve") => serve(),
        _ => demonstrate(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("image_worker: {error}");
            ExitCode::FAILURE
        }
    }
}

// The tasks.

fn serve() -> Result<()> {
    let io = |source| Error::io("serve tasks", source);
    let mut answers = std::io::stdout().lock();
    for task in std::io::stdin().lock().lines() {
        let task = task.map_err(io)?;
        let [stack, image, result] = task.split(' ').collect::<Vec<_>>()[..] else {
            return Err(Error::new(ErrorKind::Config, "serve tasks", "a task is three words"));
        };
        let future = Future::<Spots>::from_reference(Reference::from_text(result)?)?;
        match run(stack, image) {
            Ok((spots, file)) => {
                future.set_result(&spots)?;
                writeln!(answers, "done {image} {file}").map_err(io)?;
            }
            Err(error) => {
                future.set_error(&error)?; // who waits for the result gets it
                writeln!(answers, "failed {image}").map_err(io)?;
            }
        }
        answers.flush().map_err(io)?;
    }
    Ok(())
}

/// The spots of an image of a stack, whose elements are of the type that the program stored.
fn run(stack: &str, image: &str) -> Result<(Spots, String)> {
    let stack = Reference::from_text(stack)?;
    let image = image.parse().or(Err(no_such_image(image)))?;
    match analyse::<u16>(stack.clone(), image) {
        Err(error) if error.kind() == ErrorKind::Decode => analyse::<f32>(stack, image),
        outcome => outcome,
    }
}

fn analyse<T: Element + Into<f64>>(stack: Reference, image: usize) -> Result<(Spots, String)> {
    let stack = Proxy::<Array<T>>::from_reference(stack);
    let pixels = stack.resolve()?; // maps the stack, or finds that it is mapped already
    let view = pixels.view()?.into_dimensionality::<Ix3>().map_err(|source| {
        Error::new(ErrorKind::Decode, "analyse an image", "a stack has three dimensions")
            .with_source(source)
    })?;
    if image >= view.len_of(Axis(0)) {
        return Err(no_such_image(image).with("images", view.len_of(Axis(0))));
    }
    let spots = find_spots(&view.index_axis(Axis(0), image));
    Ok((spots, mapped_file(pixels.as_ptr() as usize)))
}

fn no_such_image(image: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, "analyse an image", "the stack has no such image")
        .with("image", image)
        .with_hint("images are counted from 0")
}

/// What the memory at an address was mapped from: nothing, if it is a copy.
fn mapped_file(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let file = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let is_here = (number(start)?..number(end)?).contains(&address);
        is_here.then(|| rest.split_ascii_whitespace().skip(4).collect::<Vec<_>>().join(" "))
    });
    file.filter(|file| file.starts_with('/')).unwrap_or_default()
}

// The analysis. It knows nothing of proxies.

/// Every connected region well above the noise.
fn find_spots<T: Copy + Into<f64>>(image: &ArrayView2<'_, T>) -> Spots {
    let mut values: Vec<f64> = image.iter().map(|pixel| (*pixel).into()).collect();
    let background = median(&mut values);
    for value in &mut values {
        *value = (*value - background).abs();
    }
    let threshold = background + 5.0 * 1.4826 * median(&mut values);

    let mut rows = Vec::new();
    let mut is_new = image.mapv(|pixel| pixel.into() > threshold);
    for start in ndarray::indices(image.dim()) {
        let spot = region(&mut is_new, start);
        if spot.len() < SMALLEST {
            continue;
        }
        let (mut y, mut x, mut flux) = (0.0, 0.0, 0.0);
        for place in &spot {
            let light = image[*place].into() - background;
            y += light * place.0 as f64;
            x += light * place.1 as f64;
            flux += light;
        }
        rows.extend([y / flux, x / flux, spot.len() as f64, flux, background, threshold]);
    }
    let count = rows.len() / COLUMNS;
    Array2::from_shape_vec((count, COLUMNS), rows).unwrap_or_default() // the shape is that of `rows`
}

/// The pixels that are connected with `start` by their edges; takes them out of `is_new`.
fn region(is_new: &mut Array2<bool>, start: (usize, usize)) -> Vec<(usize, usize)> {
    let (mut found, mut next) = (Vec::new(), vec![start]);
    while let Some((y, x)) = next.pop() {
        let Some(new) = is_new.get_mut((y, x)).filter(|new| **new) else { continue };
        *new = false;
        found.push((y, x));
        next.extend([(y + 1, x), (y, x + 1)]);
        next.extend(y.checked_sub(1).map(|y| (y, x)));
        next.extend(x.checked_sub(1).map(|x| (y, x)));
    }
    found
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let (is_even, middle) = (values.len().is_multiple_of(2), values.len() / 2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp).filter(|_| is_even);
    f64::midpoint(lower.unwrap_or(*upper), *upper)
}

// Alone.

fn demonstrate() -> Result<()> {
    let store = Store::open(&format!("shm://image-worker-{}", std::process::id()))?;
    let mut stack = store.empty::<u16>(&[2, 64, 64])?;
    for (index, pixel) in stack.iter_mut().enumerate() {
        let (image, y, x) = (index / 4096, index / 64 % 64, index % 64);
        let is_bright = image == 1 && (y / 4, x / 4) == (5, 9);
        *pixel = 100 + (index * 37 % 11) as u16 + if is_bright { 500 } else { 0 };
    }
    let stack = store.proxy_array(stack)?.reference()?.to_text()?;
    for image in ["0", "1", "2"] {
        match run(&stack, image) {
            Ok((spots, _)) => println!("image {image}: spots {spots:.1}"),
            Err(error) => println!("image {image}: {error}"),
        }
    }
    store.close(true)
}
