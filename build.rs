//! Compiles the protos: messages once, client and server each for the module that owns them.

use std::path::{Path, PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let protos = proto_files(Path::new("proto/bluebird/v1"))?;
    println!("cargo::rerun-if-changed=proto");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&protos)?;
    let mut descriptors = compiler.file_descriptor_set();
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let messages = subfolder(&out, "messages")?;
    // What a secret holds must not get into a log by way of its `Debug`; src/api/config.rs has one without.
    prost_build::Config::new().skip_debug([".bluebird.v1.Secret"]).out_dir(messages).compile_fds(descriptors.clone())?;

    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".bluebird.v1", "crate::api::v1")
        .out_dir(subfolder(&out, "client")?)
        .compile_fds(descriptors.clone())?;

    // The server sends stored bytes as they are: these responses are put together from them instead of being encoded again.
    let mut server = tonic_prost_build::configure().build_client(false).extern_path(".bluebird.v1", "crate::api::v1");
    for response in ["Create", "Get", "List", "Update", "UpdateStatus", "Apply", "Delete"] {
        server = server.extern_path(format!(".bluebird.v1.{response}Response"), "crate::apiserver::Frame");
    }
    // Watch is answered without the generated server: its responses are framed already.
    for service in descriptors.file.iter_mut().flat_map(|file| &mut file.service) {
        service.method.retain(|method| method.name() != "Watch");
    }
    server.out_dir(subfolder(&out, "server")?).compile_fds(descriptors)?;

    // What the store asks of an etcd. Apart from our own API: it is somebody else's.
    println!("cargo::rerun-if-changed={ETCD}");
    let mut compiler = protox::Compiler::new([ETCD])?;
    compiler.include_source_info(true).open_files(["rpc.proto"])?;
    let etcd = tonic_prost_build::configure().build_server(false).bytes(".").out_dir(subfolder(&out, "etcd")?);
    etcd.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Where the protos of etcd are.
const ETCD: &str = "src/store/backend/etcd/proto";

fn proto_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn subfolder(out: &Path, name: &str) -> std::io::Result<PathBuf> {
    let folder = out.join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
