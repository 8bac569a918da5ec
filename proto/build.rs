//! Compiles the service definitions; `protox` stands in for protoc so that cargo alone suffices.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["query", "ingest", "admin"].map(|f| format!("proto/strandline/v1/{f}.proto"));
    let descriptors = protox::compile(&files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("strandline.bin"), {
        use protox::prost::Message as _;
        descriptors.encode_to_vec()
    })?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
