//! The server's threads and sockets: one thread for the connections, one for the engine.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use super::config::SimConfig;
use super::engine::Engine;
use super::routes::Routes;
use super::truth::{TruthLog, TruthRecord};
use crate::clock::Clock;

/// Connections that may wait to be accepted: a burst of arrivals must not be held up.
const BACKLOG: u32 = 4096;

/// A simulated server that runs. Dropping it closes its connections in mid-stream.
#[derive(Debug)]
pub struct SimServer {
    address: SocketAddr,
    truth: TruthLog,
    engine: Engine,
    /// Dropped to end the thread of the connections.
    shutdown: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl SimServer {
    /// Starts a server. Port 0 picks a free one.
    pub fn start(config: SimConfig, address: SocketAddr) -> io::Result<Self> {
        config.check()?;
        let words = config.lexicon.words()?;
        let clock = Clock::start();
        let engine = Engine::new(&config, clock);
        let truth = TruthLog::default();
        let routes = Routes { clock, config, words, engine: engine.clone(), truth: truth.clone() };

        let (shutdown, shut_down) = oneshot::channel();
        let (bound_sender, bound) = std_mpsc::channel();
        let connections = thread::Builder::new()
            .name("sim-connections".to_owned())
            .spawn(move || serve(routes, address, &bound_sender, shut_down))?;
        let address = bound.recv().unwrap_or_else(|_| {
            Err(io::Error::other("the simulator's thread ended before it listened"))
        })?;
        let mut server =
            Self { address, truth, engine, shutdown: Some(shutdown), threads: vec![connections] };
        let engine = server.engine.clone();
        let pacing =
            thread::Builder::new().name("sim-engine".to_owned()).spawn(move || engine.run())?;
        server.threads.push(pacing);
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Root of its API.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happened to each request since the start or the last reset, in order of submission.
    pub fn truth(&self) -> Vec<TruthRecord> {
        self.truth.records()
    }

    /// Forgets what happened.
    pub fn reset_truth(&self) {
        self.truth.reset();
    }

    /// Ends the server as dropping it does. Returns when its threads have ended.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        self.engine.stop();
        self.shutdown = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

/// Serves until `shut_down`; the connections end with the runtime.
fn serve(
    routes: Routes,
    address: SocketAddr,
    bound: &std_mpsc::Sender<io::Result<SocketAddr>>,
    shut_down: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let listening = runtime.and_then(|runtime| {
        let listener = runtime.block_on(async { listen(address) })?;
        let address = listener.local_addr()?;
        Ok((runtime, listener, address))
    });
    // The receiver waits in `start`.
    match listening {
        Err(error) => {
            let _ = bound.send(Err(error));
        }
        Ok((runtime, listener, address)) => {
            let _ = bound.send(Ok(address));
            runtime.block_on(async {
                tokio::select! {
                    _ = shut_down => {}
                    () = accept(listener, Arc::new(routes)) => {}
                }
            });
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, routes: Arc<Routes>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: some will be closed.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        // Without it tokens are only late.
        let _ = stream.set_nodelay(true);
        let routes = Arc::clone(&routes);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let routes = Arc::clone(&routes);
                async move { routes.answer(request).await.map_err(io::Error::other) }
            });
            // How a connection ends is its client's affair; a cancelled answer records itself.
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
