//! Protobuf messages, by a descriptor set made here.

use super::*;
use base64::Engine as _;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, OneofDescriptorProto,
};
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(Label::Optional.into()),
        ..FieldDescriptorProto::default()
    }
}

fn of_type(field: FieldDescriptorProto, name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        type_name: Some(name.to_owned()),
        ..field
    }
}

fn descriptors() -> Vec<u8> {
    let inner = DescriptorProto {
        name: Some("Inner".to_owned()),
        field: vec![field("b", 1, Type::Int64), field("a", 2, Type::String)],
        ..DescriptorProto::default()
    };
    let tags = FieldDescriptorProto {
        label: Some(Label::Repeated.into()),
        ..field("tags", 3, Type::String)
    };
    let n = FieldDescriptorProto {
        proto3_optional: Some(true),
        oneof_index: Some(0),
        ..field("n", 5, Type::Sint64)
    };
    let color = EnumDescriptorProto {
        name: Some("Color".to_owned()),
        value: [("RED", 0), ("BLUE", 1)]
            .map(|(name, number)| EnumValueDescriptorProto {
                name: Some(name.to_owned()),
                number: Some(number),
                ..EnumValueDescriptorProto::default()
            })
            .into(),
        ..EnumDescriptorProto::default()
    };
    let row = DescriptorProto {
        name: Some("Row".to_owned()),
        field: vec![
            field("day", 1, Type::Int32),
            of_type(field("name", 2, Type::Enum), ".p.Color"),
            tags,
            of_type(field("doc", 4, Type::Message), ".p.Inner"),
            n,
        ],
        oneof_decl: vec![OneofDescriptorProto {
            name: Some("_n".to_owned()),
            ..OneofDescriptorProto::default()
        }],
        ..DescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("row.proto".to_owned()),
        package: Some("p".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![inner, row],
        enum_type: vec![color],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

fn properties(rest: &str) -> String {
    format!(
        r#", "stream.log.decoder.class.name": "x.ProtoBufMessageDecoder", "stream.log.decoder.prop.protoClassName": "p.Row", {rest}"#
    )
}

fn row(change: impl FnOnce(&mut DynamicMessage, &DescriptorPool)) -> Vec<u8> {
    let pool = DescriptorPool::decode(&descriptors()[..]).unwrap();
    let mut row = DynamicMessage::new(pool.get_message_by_name("p.Row").unwrap());
    row.set_field_by_name("day", Value::I32(16_092));
    change(&mut row, &pool);
    row.encode_to_vec()
}

#[test]
fn messages_are_decoded_by_a_descriptor_set() {
    let set = base64::engine::general_purpose::STANDARD.encode(descriptors());
    let given = properties(&format!(
        r#""stream.log.decoder.prop.descriptorSet": "{set}""#
    ));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("row.desc");
    std::fs::write(&path, descriptors()).unwrap();
    let file = properties(&format!(
        r#""stream.log.decoder.prop.descriptorFile": "file://{}""#,
        path.display()
    ));
    let full = row(|row, pool| {
        let mut inner = DynamicMessage::new(pool.get_message_by_name("p.Inner").unwrap());
        inner.set_field_by_name("a", Value::String("x".to_owned()));
        row.set_field_by_name("doc", Value::Message(inner));
        row.set_field_by_name("name", Value::EnumNumber(1));
        let tags = ["s", "t"].map(|t| Value::String(t.to_owned()));
        row.set_field_by_name("tags", Value::List(tags.into()));
        row.set_field_by_name("n", Value::I64(0));
    });
    for stream in [given, file] {
        let mut decoder = decoder_of(&config(&stream));
        let decoded = decoder.decode(&[
            message(1, full.clone()),
            message(2, row(|_, _| {})),
            message(3, full[..full.len() - 1].to_vec()),
            message(
                4,
                row(|row, _| row.set_field_by_name("n", Value::I64(1 << 40))),
            ),
        ]);
        assert_eq!(decoded.offsets, [1, 2], "{:?}", decoded.rejected);
        let batch = decoded.batch;
        // What was not sent is the type's default, and null only where the schema tells.
        let name = |v: &str| Some(v.to_owned());
        assert_eq!(texts(&batch, "name"), [name("BLUE"), name("RED")]);
        assert_eq!(texts(&batch, "doc"), [name(r#"{"b":0,"a":"x"}"#), None]);
        let n = batch["n"].as_primitive::<Int32Type>();
        assert_eq!((n.value(0), n.is_null(0), n.is_null(1)), (0, false, true));
        assert_eq!(batch["tags"].as_list::<i32>().value(0).len(), 2);
        let reasons: Vec<&str> = (decoded.rejected.iter())
            .map(|r| r.reason.as_str())
            .collect();
        assert!(
            reasons[0].contains("not a p.Row in Protobuf"),
            "{reasons:?}"
        );
        assert!(
            reasons[1].contains("outside the range of INT"),
            "{reasons:?}"
        );
        for at in 0..full.len() {
            let mut flipped = full.clone();
            flipped[at] ^= 0x55;
            let broken = [message(1, flipped), message(2, full[..at].to_vec())];
            let decoded = decoder.decode(&broken);
            assert_eq!(decoded.offsets.len() + decoded.rejected.len(), 2);
        }
    }
}

#[test]
fn a_descriptor_set_that_can_not_be_used_is_named() {
    let gone = properties(r#""stream.log.decoder.prop.descriptorFile": "/nowhere/row.desc""#);
    let gone = config(&gone);
    let error = Decoder::new(&gone, &gone.streams[0], 0, None)
        .err()
        .unwrap();
    assert!(
        error.message().contains("/nowhere/row.desc can't be read"),
        "{error}"
    );
    let error = check_descriptor_set(&descriptors(), "p.Missing").unwrap_err();
    assert!(
        error.contains("no message p.Missing; it has p.Inner, p.Row"),
        "{error}"
    );
    // Without its package, where that is enough.
    assert_eq!(check_descriptor_set(&descriptors(), "Row"), Ok(()));
}
