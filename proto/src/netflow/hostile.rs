//! Messages of strangers who mean harm: what they cost is bounded by what they sent, what they leave is bounded by names.

use super::elements::REVERSE_PEN;
use super::tests::read;
use super::*;
use crate::rows::FlowBatch;

const AT: MessageOrigin = (1, 0, 0);

fn words(w: &[u16]) -> Vec<u8> {
    w.iter().flat_map(|n| n.to_be_bytes()).collect()
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    [words(&[id, 4 + body.len() as u16]), body.to_vec()].concat()
}

fn ipfix(sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    [words(&[10, (16 + body.len()) as u16]), vec![0x65; 4], vec![0; 4], vec![0, 0, 0, 9], body].concat()
}

/// So many copies of a set as a datagram has room for.
fn full_of(set: &[u8]) -> Vec<u8> {
    ipfix(&vec![set.to_vec(); 60_000 / set.len()])
}

/// A template of one field a number.
fn template(id: u16, fields: &[(u16, u16)]) -> Vec<u8> {
    let fields: Vec<u16> = fields.iter().flat_map(|(element, length)| [*element, *length]).collect();
    set(2, &words(&[&[id, fields.len() as u16 / 2][..], &fields].concat()))
}

#[test]
fn sets_of_no_bytes_are_not_held() {
    let mut exporter = Exporter::default();
    let got = read(&mut exporter, &full_of(&set(999, &[])), AT).unwrap();
    assert_eq!((exporter.waiting(), got.held, got.given_up), ((0, None), 0, 0));
}

#[test]
fn a_flood_of_tiny_sets_is_held_up_to_the_named_bounds_and_counted_beyond() {
    let mut exporter = Exporter::default();
    let (mut held, mut given_up) = (0, 0);
    for _ in 0..20 {
        let got = read(&mut exporter, &full_of(&set(999, &[1])), AT).unwrap();
        (held, given_up) = (held + got.held, given_up + got.given_up);
    }
    assert_eq!(exporter.waiting().0, MAX_HELD_SETS);
    assert_eq!((held as usize, (held + given_up) as usize), (MAX_HELD_SETS, 20 * 12_000));
}

#[test]
fn the_fields_of_all_templates_together_are_bounded() {
    let mut exporter = Exporter::default();
    let many = [(1, 1); MAX_FIELDS];
    let refused = (256..4352).filter(|id| {
        let got = read(&mut exporter, &ipfix(&[template(*id, &many)]), AT).unwrap();
        !got.errors.is_empty()
    });
    assert_eq!(refused.count(), 4096 - MAX_TEMPLATE_FIELDS / MAX_FIELDS);
}

#[test]
fn a_name_is_cut_and_a_full_table_still_takes_new_names_for_what_it_knows() {
    let mut exporter = Exporter::default();
    let options = set(3, &words(&[300, 2, 1, 95, 4, 96, 0xffff]));
    let flows = template(301, &[(8, 4), (12, 4), (95, 4)]);
    read(&mut exporter, &ipfix(&[options, flows]), AT).unwrap();
    let named = |id: u32, name: &str| {
        let length = [&[255][..], &(name.len() as u16).to_be_bytes()].concat();
        [&id.to_be_bytes()[..], &length, name.as_bytes()].concat()
    };
    for ids in (0..MAX_NAMES as u32 + 100).collect::<Vec<_>>().chunks(100) {
        let records: Vec<u8> = ids.iter().flat_map(|id| named(*id, "old")).collect();
        read(&mut exporter, &ipfix(&[set(300, &records)]), AT).unwrap();
    }
    let long = "ä".repeat(20_000);
    read(&mut exporter, &ipfix(&[set(300, &named(7, &long)), set(300, &named(8, "new"))]), AT).unwrap();
    let app = |exporter: &mut Exporter, id: u32| {
        let record = [&[10, 0, 0, 1, 10, 0, 0, 2][..], &id.to_be_bytes()].concat();
        read(exporter, &ipfix(&[set(301, &record)]), AT).unwrap().flows.remove(0).0.app
    };
    assert_eq!(app(&mut exporter, 7), "ä".repeat(MAX_NAME_BYTES / 2));
    assert_eq!(app(&mut exporter, 8), "new");
    assert_eq!(app(&mut exporter, MAX_NAMES as u32 + 1), "");
}

#[test]
fn instants_beyond_all_reckoning_are_no_instants() {
    let mut exporter = Exporter::default();
    for element in [150, 151, 152, 153, 154, 155, 158, 159] {
        let message = ipfix(&[template(256, &[(8, 4), (12, 4), (element, 8)]), set(256, &[0xff; 16])]);
        let got = read(&mut exporter, &message, AT).unwrap();
        assert_eq!(got.flows.len(), 1, "element {element}");
        let context = crate::flow::FlowContext {
            tenant: "t",
            partition: "p",
            row_id: crate::cell::RowId::default(),
            epoch: 1,
            received: crate::cell::Time(1_700_000_000_000_000),
            sampler: [10, 0, 0, 1].into(),
            flow_type: "ipfix",
        };
        FlowBatch::default().push_flow(&got.flows[0].0, &crate::flow::tables::Enriched::default(), &context);
    }
    let options = [set(3, &words(&[300, 3, 1, 302, 2, 305, 8, 306, 8])), set(300, &[0xff; 18])];
    assert_eq!(read(&mut exporter, &ipfix(&options), AT).unwrap().records, 1);
}

/// What one exporter sends, in whatever order.
fn any_set((what, n): (u8, u8)) -> Vec<u8> {
    let id = 256 + u16::from(what % 4);
    match what / 4 {
        0 | 1 => set(id, &vec![n; usize::from(n)]),
        2 if n % 5 == 0 => set(2, &words(&[2, 0])),
        _ => match n % 4 {
            0 => template(id, &[(8, 4), (12, 4), (1, 1)]),
            1 => template(id, &[(8, 4), (12, 4), (7, 2), (0, 0), (11, 2)]),
            2 => template(id, &[(8, 4), (12, 4), (1, 0xffff)]),
            _ => {
                let reverse = [&words(&[id, 3, 8, 4, 12, 4, 0x8001, 1])[..], &REVERSE_PEN.to_be_bytes()].concat();
                set(2, &reverse)
            }
        },
    }
}

proptest::proptest! {
    #[test]
    fn no_two_flows_have_one_name_and_what_is_left_behind_is_bounded(
        messages in proptest::collection::vec(proptest::collection::vec((0u8..16, proptest::prelude::any::<u8>()), 0..12), 0..12),
        noise: Vec<u8>,
    ) {
        let mut exporter = Exporter::default();
        let mut names = std::collections::HashSet::new();
        let mut bytes = 0;
        for (n, sets) in messages.into_iter().enumerate() {
            let mut message = ipfix(&sets.into_iter().map(any_set).collect::<Vec<_>>());
            if n % 5 == 4 {
                message.extend(&noise);
            }
            bytes += message.len();
            exporter.advance(n as i64 * MAX_HELD_MS / 4);
            let got = read(&mut exporter, &message, (n as u64 / 3, n as u32 % 3, 0)).unwrap();
            for (flow, origin) in &got.flows {
                assert!(names.insert(*origin), "{origin:?} names two flows, one of them {flow:?}");
            }
            assert!(exporter.bytes() <= MAX_EXPORTER_BYTES);
            assert!(names.len() * MIN_FLOW_BYTES <= 2 * bytes);
        }
        exporter.advance(i64::MAX);
        assert_eq!((exporter.waiting(), exporter.due_ms()), ((0, None), None));
    }
}

#[test]
fn what_waited_too_long_is_given_up_and_what_did_not_is_decoded() {
    let mut exporter = Exporter::default();
    let flow = set(256, &[1; 8]);
    exporter.advance(0);
    read(&mut exporter, &ipfix(&[flow.clone(), flow.clone()]), AT).unwrap();
    exporter.advance(MAX_HELD_MS - 1);
    read(&mut exporter, &ipfix(&[flow]), (2, 0, 0)).unwrap();
    assert_eq!(exporter.due_ms(), Some(MAX_HELD_MS));
    assert_eq!(exporter.advance(MAX_HELD_MS), 2);
    let got = read(&mut exporter, &ipfix(&[template(256, &[(8, 4), (12, 4)])]), (3, 0, 0)).unwrap();
    let origins: Vec<_> = got.flows.iter().map(|(_, origin)| (origin.message.0, origin.index)).collect();
    assert_eq!(origins, [(2, 2 * 20)]);
}

#[test]
fn a_record_that_is_too_short_for_a_flow_is_none() {
    let mut exporter = Exporter::default();
    let got = read(&mut exporter, &ipfix(&[template(256, &[(1, 1)]), set(256, &[1; 50_000])]), AT).unwrap();
    assert_eq!((got.records, got.flows.len(), got.errors.len()), (50_000, 0, 1));
}

#[test]
fn options_of_no_scope_are_no_flows_and_all_of_them_can_be_withdrawn() {
    let mut exporter = Exporter::default();
    // v9, a scope of no bytes: the system.
    let options = set(1, &words(&[300, 4, 8, 1, 0, 34, 4, 50, 4]));
    let body = [options, set(300, &[0, 0, 0, 9, 0, 0, 0, 8])].concat();
    let message = [words(&[9, 2]), vec![0; 16], body].concat();
    let got = read(&mut exporter, &message, AT).unwrap();
    assert_eq!((got.records, got.flows.len(), exporter.samplers.len()), (1, 0, 1));
    let mut exporter = Exporter::default();
    read(&mut exporter, &ipfix(&[set(3, &words(&[300, 2, 1, 95, 4, 305, 4]))]), AT).unwrap();
    read(&mut exporter, &ipfix(&[set(3, &words(&[3, 0]))]), AT).unwrap();
    assert_eq!(read(&mut exporter, &ipfix(&[set(300, &[0; 8])]), AT).unwrap().held, 1);
}

#[test]
fn names_are_worth_so_many_times_the_records_they_are_added_to() {
    let mut exporter = Exporter::default();
    let options =
        [set(3, &words(&[300, 3, 1, 10, 4, 82, 128, 83, 128])), set(300, &[&[0, 0, 0, 1], &[b'n'; 256][..]].concat())];
    read(&mut exporter, &ipfix(&options), AT).unwrap();
    let record = [0, 0, 0, 1, 0, 0, 0, 9];
    let few = [template(256, &[(10, 4), (1, 4), (210, 8)]), set(256, &[&record[..], &[0; 8]].concat())];
    let got = read(&mut exporter, &ipfix(&few), AT).unwrap();
    assert_eq!((got.flows[0].0.in_if_name.len(), got.flows[0].0.in_if_description.len()), (128, 128));
    assert!(got.errors.is_empty());
    let many = [template(256, &[(10, 4), (1, 4)]), set(256, &record.repeat(6000))];
    let got = read(&mut exporter, &ipfix(&many), AT).unwrap();
    let names: usize = got.flows.iter().map(|(flow, _)| flow.in_if_name.len() + flow.in_if_description.len()).sum();
    assert_eq!((got.flows.len(), got.errors.len()), (6000, 1));
    assert!(names <= NAMES_WORTH * 6000 * record.len() && names > 0);
}
