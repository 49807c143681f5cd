//! What the engine itself costs: `cargo bench --bench engine`. Each figure that depends on the machine is a
//! ratio to something run in turn with it.
//!
//! - Events from the socket to finished records, against a bare drain of the same bytes by hyper that
//!   parses nothing: events a second and processor time.
//! - The scanner of server-sent events alone, against `memchr` looking for line ends, and the allocations of
//!   reading an event.
//! - The schedule of a million arrivals.

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use nix::time::{ClockId, clock_gettime};
use servebench::course::Course;
use servebench::load::ArrivalProcess;
use servebench::plan::{Case, Plan};
use servebench::schedule::Schedule;
use servebench::wire::{Event, ProtocolKind, SseParser};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const STREAMS: usize = 64;
const REQUESTS: usize = 640;
const EVENTS: usize = 500;
const ROUNDS: usize = 7;

/// How the server hands its events to the socket.
#[derive(Clone, Copy, Debug)]
enum Writes {
    /// As many as fit.
    Together,
    /// One at a time, as engines do.
    Single,
}

/// What one way of reading took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn main() -> anyhow::Result<()> {
    for writes in [Writes::Together, Writes::Single] {
        let address = serve(writes)?;
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(drain(address)?);
            ours.push(measure(address, REQUESTS)?);
        }
        let (ours, bare) = (least(&ours), least(&bare));
        let events = (REQUESTS * EVENTS) as f64;
        let per_s = |cost: Cost| events / cost.wall.as_secs_f64();
        let cpu_s = |cost: Cost| cost.cpu.as_secs_f64() / events * 1e6;
        println!(
            "events, written {}:",
            match writes {
                Writes::Together => "together",
                Writes::Single => "one at a time",
            }
        );
        println!(
            "  to records   {:>10.0} events/s {:6.2} CPU s per million",
            per_s(ours),
            cpu_s(ours)
        );
        println!(
            "  bare drain   {:>10.0} events/s {:6.2} CPU s per million",
            per_s(bare),
            cpu_s(bare)
        );
        println!(
            "  ratio        {:>10.2} {:>15.2}",
            per_s(ours) / per_s(bare),
            cpu_s(ours) / cpu_s(bare)
        );
    }
    scan();
    schedule();
    Ok(())
}

/// The least of each, which is what the work costs where nothing else ran.
fn least(costs: &[Cost]) -> Cost {
    let min = |of: fn(&Cost) -> Duration| costs.iter().map(of).min().unwrap_or_default();
    Cost { wall: min(|cost| cost.wall), cpu: min(|cost| cost.cpu) }
}

fn event(number: usize) -> String {
    format!(
        "data: {{\"id\":\"cmpl-7\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"m\",\
         \"choices\":[{{\"index\":0,\"text\":\" word{number}\",\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    )
}

/// The parts of a response: its head, its events each in a chunk, its end.
fn response() -> Vec<Vec<u8>> {
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len()).into_bytes();
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut parts = vec![head.as_bytes().to_vec()];
    parts.extend((0..EVENTS).map(|number| chunk(&event(number))));
    let last = "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n";
    parts.push(chunk(last));
    parts.push(chunk("data: [DONE]\n\n"));
    parts.push(b"0\r\n\r\n".to_vec());
    parts
}

/// A server that answers every request with the same bytes, on a thread of its own.
fn serve(writes: Writes) -> anyhow::Result<SocketAddr> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let _ = sender.send(listener.local_addr()?);
            let parts = response();
            let parts: Arc<[Vec<u8>]> = match writes {
                Writes::Together => [parts.concat()].into(),
                Writes::Single => parts.into(),
            };
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(answer(stream, Arc::clone(&parts)));
            }
        })
    });
    Ok(receiver.recv()?)
}

async fn answer(mut stream: TcpStream, parts: Arc<[Vec<u8>]>) -> io::Result<()> {
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        // Every body that comes here is an object.
        if request.ends_with(b"}") {
            request.clear();
            for part in parts.iter() {
                stream.write_all(part).await?;
                tokio::task::yield_now().await;
            }
        }
    }
}

fn case(address: SocketAddr, requests: usize) -> anyhow::Result<Case> {
    let mut plan = Plan::parse(&format!(
        r#"
        defaults = {{ requests = {requests}, tokenizer = "fixtures/tokenizer.json", details = false }}
        backend = [{{ name = "b", kind = "openai", base_url = "http://{address}", models = ["m"] }}]
        workload = [{{ name = "w", path = "fixtures/sharegpt.json", output_tokens = {EVENTS} }}]
        bench = [{{ loads = ["{STREAMS}conc"], duration = "1h", requests = {requests} }}]
        "#
    ))?;
    Ok(plan.cases.remove(0))
}

/// Reads all to records.
fn measure(address: SocketAddr, requests: usize) -> anyhow::Result<Cost> {
    let report = servebench::measure(&case(address, requests)?)?;
    assert_eq!((report.completed, report.failed), (requests as u64, 0));
    let tokens = report.total_output_tokens.unwrap_or_default() as f64;
    let cpu_s =
        report.servebench.client.cpu_s_per_million_tokens.unwrap_or(f64::NAN) * tokens / 1e6;
    let wall = Duration::from_secs_f64(report.duration);
    Ok(Cost { wall, cpu: Duration::from_secs_f64(cpu_s) })
}

/// Reads all and looks at nothing.
fn drain(address: SocketAddr) -> anyhow::Result<Cost> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (wall, cpu) = (Instant::now(), thread_cpu());
    runtime.block_on(async {
        let mut users = tokio::task::JoinSet::new();
        for _ in 0..STREAMS {
            users.spawn(drain_user(address));
        }
        while let Some(user) = users.join_next().await {
            user??;
        }
        anyhow::Ok(())
    })?;
    Ok(Cost { wall: wall.elapsed(), cpu: thread_cpu() - cpu })
}

async fn drain_user(address: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for _ in 0..REQUESTS / STREAMS {
        let body = Full::new(Bytes::from_static(b"{}"));
        let request = hyper::Request::post("/v1/completions").header("host", "x").body(body)?;
        let mut response = sender.send_request(request).await?;
        while let Some(frame) = response.frame().await {
            black_box(frame?);
        }
    }
    Ok(())
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// The best of some runs.
fn best_s(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(time).fold(f64::INFINITY, f64::min)
}

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn scan() {
    const EVENTS: usize = 200_000;
    let stream: Vec<u8> = (0..EVENTS).flat_map(|number| event(number).into_bytes()).collect();
    let gb = stream.len() as f64 / 1e9;
    // As reads bring them: an event at a time, or sixteen.
    for size in [event(1).len(), 16 * event(1).len()] {
        let scanned = best_s(|| {
            let mut parser = SseParser::default();
            for part in stream.chunks(size) {
                parser.feed(part, |_, data| {
                    black_box(data);
                });
            }
        });
        let lines = best_s(|| {
            for part in stream.chunks(size) {
                black_box(memchr::memchr_iter(b'\n', part).count());
            }
        });
        let mut read = 0;
        let (mut parser, mut event) = (SseParser::default(), Event::default());
        let counted = allocation_counter::measure(|| {
            for part in stream.chunks(size) {
                parser.feed(part, |_, data| {
                    let known = ProtocolKind::Completions.read(data, &mut event);
                    read += usize::from(known.is_ok() && event.has_output());
                });
            }
        });
        assert_eq!(read, EVENTS);
        println!(
            "scanner and JSON, {size} bytes a read: {:.6} allocations an event",
            counted.count_total as f64 / EVENTS as f64
        );
        println!(
            "scanner, {size} bytes a read: {:.2} GB/s, {:.2} of memchr's",
            gb / scanned,
            lines / scanned
        );
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn schedule() {
    let course = Course::of_requests(1_000_000);
    let Ok(load) = "1000qps".parse() else { return };
    for arrivals in [ArrivalProcess::Constant, ArrivalProcess::Poisson] {
        let s = best_s(|| drop(black_box(Schedule::new(&load, &course, arrivals, 0))));
        println!("schedule of a million arrivals, {}: {:.1} ms", arrivals.name(), s * 1e3);
    }
}
