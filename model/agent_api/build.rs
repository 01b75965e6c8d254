//! Generates the wire types, their strict wire schema and the method table from `proto/`.
//!
//! The pure Rust parser is used: no `protoc` is needed, and the result depends on the files alone.

use std::cell::RefCell;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use protobuf::reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, OneofDescriptor,
    RuntimeFieldType, RuntimeType,
};
use protobuf_codegen::{Codegen, Customize, CustomizeCallback};

const FILES: [&str; 5] = ["agent", "csi", "health", "oci", "types"];

type Files = Rc<RefCell<Vec<FileDescriptorProto>>>;

/// Adds the serde form of the policy input to the generated types, and keeps the file descriptors.
struct PolicyInput(Files);

impl CustomizeCallback for PolicyInput {
    fn file(&self, file: &FileDescriptor) -> Customize {
        self.0.borrow_mut().push(file.proto().clone());
        Customize::default()
    }

    fn message(&self, _: &MessageDescriptor) -> Customize {
        Customize::default().before(
            "#[derive(::serde::Serialize, ::serde::Deserialize)]\n\
             #[serde(default, deny_unknown_fields)]",
        )
    }

    fn field(&self, field: &FieldDescriptor) -> Customize {
        match field.runtime_field_type() {
            RuntimeFieldType::Singular(RuntimeType::Message(_)) => {
                Customize::default().before("#[serde(with = \"crate::json::message\")]")
            }
            RuntimeFieldType::Singular(RuntimeType::Enum(_)) => {
                Customize::default().before("#[serde(with = \"crate::json::number\")]")
            }
            _ => Customize::default(),
        }
    }

    fn special_field(&self, _: &MessageDescriptor, _: &str) -> Customize {
        Customize::default().before("#[serde(skip)]")
    }

    fn enumeration(&self, _: &EnumDescriptor) -> Customize {
        Customize::default()
    }

    fn oneof(&self, _: &OneofDescriptor) -> Customize {
        Customize::default().before(
            "#[derive(::serde::Serialize, ::serde::Deserialize)]\n\
             #[serde(rename_all = \"lowercase\")]",
        )
    }
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let wire = out.join("wire");
    fs::create_dir_all(&wire).expect("OUT_DIR is writable");
    let files = Files::default();
    let inputs: Vec<String> = FILES.iter().map(|name| format!("proto/{name}.proto")).collect();
    for input in &inputs {
        println!("cargo::rerun-if-changed={input}");
    }
    Codegen::new()
        .pure()
        .include("proto")
        .inputs(&inputs)
        .out_dir(&wire)
        .customize(Customize::default().btreemaps(true).lite_runtime(true).gen_mod_rs(true))
        .customize_callback(PolicyInput(Rc::clone(&files)))
        .run()
        .expect("the .proto files are well formed");

    let mut files = files.borrow_mut();
    files.sort_by(|a, b| a.name().cmp(b.name()));
    files.dedup_by(|a, b| a.name() == b.name());
    files.retain(|file| FILES.iter().any(|name| file.name() == format!("{name}.proto")));
    fs::write(out.join("schema.rs"), schema(&files)).expect("OUT_DIR is writable");
    fs::write(out.join("methods.rs"), methods(&files)).expect("OUT_DIR is writable");
}

/// `.grpc.Linux.SysctlEntry` -> `GRPC_LINUX_SYSCTLENTRY`.
fn static_name(path: &str) -> String {
    path.trim_start_matches('.').replace('.', "_").to_uppercase()
}

fn schema(files: &[FileDescriptorProto]) -> String {
    let mut text = String::new();
    for file in files {
        let module = file.name().trim_end_matches(".proto");
        for message in &file.message_type {
            let path = format!(".{}.{}", file.package(), message.name());
            message_schema(&mut text, &path, message);
            writeln!(
                text,
                "impl Wire for crate::{module}::{name} {{\n    \
                 const SCHEMA: &'static MessageSchema = &{schema};\n}}",
                name = message.name(),
                schema = static_name(&path),
            )
            .expect("writing to a string");
        }
    }
    text
}

fn message_schema(text: &mut String, path: &str, message: &DescriptorProto) {
    writeln!(
        text,
        "static {}: MessageSchema = MessageSchema {{ name: {:?}, fields: &[",
        static_name(path),
        message.name()
    )
    .expect("writing to a string");
    for field in &message.field {
        writeln!(
            text,
            "    FieldSchema {{ number: {}, kind: {}, repeated: {} }},",
            field.number(),
            kind(field),
            field.label() == Label::LABEL_REPEATED,
        )
        .expect("writing to a string");
    }
    text.push_str("] };\n");
    for nested in &message.nested_type {
        message_schema(text, &format!("{path}.{}", nested.name()), nested);
    }
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.type_() {
        Type::TYPE_BOOL
        | Type::TYPE_ENUM
        | Type::TYPE_INT32
        | Type::TYPE_INT64
        | Type::TYPE_UINT32
        | Type::TYPE_UINT64 => "Kind::Varint".to_owned(),
        Type::TYPE_STRING | Type::TYPE_BYTES => "Kind::Bytes".to_owned(),
        Type::TYPE_MESSAGE => format!("Kind::Message(&{})", static_name(field.type_name())),
        other => panic!("the agent API has no field of type {other:?}"),
    }
}

fn methods(files: &[FileDescriptorProto]) -> String {
    let mut text = String::from("&[\n");
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let short = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
                let request = short(method.input_type());
                let rule = match service.name() {
                    "AgentService" => format!("Some({request:?})"),
                    _ => "None".to_owned(),
                };
                writeln!(
                    text,
                    "    Method {{ name: {:?}, service: \"{}.{}\", request: {request:?}, \
                     response: {:?}, rule: {rule} }},",
                    method.name(),
                    file.package(),
                    service.name(),
                    short(method.output_type()),
                )
                .expect("writing to a string");
            }
        }
    }
    text.push_str("]\n");
    text
}
