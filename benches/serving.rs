//! Every case of `serving.toml`, as `cargo bench` runs it.

fn main() -> std::process::ExitCode {
    servebench::main!()
}
