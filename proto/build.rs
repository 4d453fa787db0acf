//! Compiles the gRPC definitions with protox, so that no system `protoc` is needed.

fn main() {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/monitoring.proto", "proto/enrolment.proto"], ["proto"])
        .expect("the .proto files compile");
    tonic_prost_build::configure()
        .bytes(".monitoring.GatewayServiceStatus.message")
        .compile_fds(files)
        .expect("code for the .proto files is generated");
}
