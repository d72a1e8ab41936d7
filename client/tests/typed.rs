//! Typed topics: values go in as they are and come out in place, on both faces; what is of another
//! type, or of none, is an error that names both.

mod fake_broker;

use std::collections::{BTreeMap, HashMap};

use fake_broker::FakeBroker;
use ringway_client::*;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

const ZERO: PartitionIndex = PartitionIndex(0);

#[derive(Debug, rkyv::Archive, rkyv::Serialize, Layout)]
struct Trade {
    symbol: String,
    price: u64,
    quantity: u32,
    side: Side,
    fills: Vec<(u64, u128)>,
    note: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, rkyv::Archive, rkyv::Serialize, Layout)]
enum Side {
    Buy,
    Sell { short: bool },
}

fn trade(number: u64) -> Trade {
    Trade {
        symbol: format!("S{}", number % 10),
        price: number * 1_000,
        quantity: number as u32,
        side: match number % 2 {
            0 => Side::Buy,
            _ => Side::Sell {
                short: number.is_multiple_of(3),
            },
        },
        fills: (0..number % 5)
            .map(|fill| (fill, u128::from(fill) << 70))
            .collect(),
        note: number.is_multiple_of(7).then(|| "seventh".into()),
    }
}

fn check(number: u64, found: &rkyv::Archived<Trade>) {
    let expected = trade(number);
    assert_eq!(found.symbol.as_str(), expected.symbol);
    assert_eq!(found.price.to_native(), expected.price);
    assert_eq!(found.quantity.to_native(), expected.quantity);
    match (&found.side, expected.side) {
        (ArchivedSide::Buy, Side::Buy) => {}
        (ArchivedSide::Sell { short }, Side::Sell { short: expected }) => {
            assert_eq!(*short, expected);
        }
        (_, expected) => panic!("not {expected:?}"),
    }
    let fills: Vec<_> = found
        .fills
        .iter()
        .map(|fill| (fill.0.to_native(), fill.1.to_native()))
        .collect();
    assert_eq!(fills, expected.fills);
    assert_eq!(found.note.as_deref(), expected.note.as_deref());
}

/// Also compressed: in place is then where the batch was inflated to.
#[tokio::test]
async fn values_come_out_as_they_went_in_and_in_place() -> Result {
    for codec in Codec::ALL {
        values_come_out(codec).await?;
    }
    Ok(())
}

async fn values_come_out(codec: Codec) -> Result {
    let broker = FakeBroker::with_shards(2);
    broker.create_topic("t", 1);
    let client = Client::connect(&broker.address()).await?;
    let producer = client
        .producer()
        .codec(codec)
        .batch_records(100)
        .build_typed::<Trade>()
        .await?;
    for number in 0..1_000 {
        let key = number.to_string();
        let trade = trade(number);
        let record = TypedRecord::value(&trade)
            .key(&key)
            .tag("n")
            .header("h", b"v");
        match number % 3 {
            0 => drop(producer.send("t", record).await?),
            1 => drop(producer.send_to("t", ZERO, record.timestamp_us(7)).await?),
            _ => drop(producer.send("t", &trade).await?),
        }
    }
    drop(producer.send("t", TypedRecord::null().key("gone")).await?);
    producer.close().await?;

    let mut consumer = client.consumer().fetch_bytes(10_000).build_typed::<Trade>();
    consumer.assign("t", None, StartAt::Offset(3)).await?;
    let mut next = 3;
    while next <= 1_000 {
        let batch = consumer.next_batch().await?;
        assert_eq!(batch.as_batch().topic(), "t");
        assert_eq!(batch.records().len(), batch.len());
        for record in &batch {
            assert_eq!(record.offset().0, next);
            if next == 1_000 {
                assert!(record.value.is_none());
                assert_eq!(record.key(), Some(&b"gone"[..]));
            } else {
                let value = record.value.expect("it has one");
                check(next, value);
                let bytes = record.record.value.expect("it has one");
                let value = std::ptr::from_ref(value).addr();
                assert!(
                    bytes.as_ptr_range().contains(&(value as *const u8)),
                    "in place"
                );
                assert_eq!(bytes.as_ptr().addr() % 16, 0);
            }
            if next % 3 == 1 && next < 1_000 {
                assert_eq!(record.timestamp_us(), 7);
                assert_eq!(record.tag(), Some(&b"n"[..]));
                assert_eq!(record.headers().next().unwrap().name, "h");
            }
            next += 1;
        }
    }
    Ok(())
}

#[test]
fn the_synchronous_face_reads_what_the_other_wrote_and_the_other_way_round() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = sync::Client::connect(&broker.address())?;
    let mut producer = client.producer().build_typed::<Trade>()?;
    for number in 0..500 {
        let value = trade(number);
        if number % 2 == 0 {
            drop(producer.send("t", &value)?);
        } else {
            drop(producer.send_to("t", ZERO, TypedRecord::value(&value).key("k"))?);
        }
    }
    producer.flush()?;
    let mut consumer = client.consumer().build_typed::<Trade>();
    consumer.assign("t", None, StartAt::Start)?;
    let mut next = 0;
    while next < 500 {
        for record in &consumer.next_batch()? {
            check(next, record.value.expect("it has one"));
            next += 1;
        }
    }
    assert!(consumer.try_next_batch()?.is_none());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::connect(&broker.address()).await?;
        let mut consumer = client.consumer().build_typed::<Trade>();
        consumer.assign("t", None, StartAt::Offset(499)).await?;
        for record in &consumer.next_batch().await? {
            check(499, record.value.expect("it has one"));
        }
        Ok(())
    })
}

/// What became of `Trade` in another build of a program.
mod later {
    use super::*;

    #[derive(rkyv::Archive, rkyv::Serialize, Layout)]
    pub(super) struct Trade {
        pub(super) symbol: String,
        pub(super) quantity: u32,
        pub(super) price: u64,
    }
}

/// Sends a value in a batch of its own.
fn put<T: Writable>(producer: &mut sync::Producer<T>, value: &T) -> Result {
    producer.send("t", value).map(drop)?;
    Ok(producer.flush()?)
}

#[test]
fn a_value_of_another_type_is_an_error_that_names_both_and_can_be_passed() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = sync::Client::connect(&broker.address())?;
    let mut old = client.producer().build_typed::<Trade>()?;
    let mut new = client.producer().build_typed::<later::Trade>()?;
    let mut bytes = client.producer().build()?;
    let later = later::Trade {
        symbol: "X".into(),
        quantity: 1,
        price: 2,
    };
    put(&mut old, &trade(0))?;
    put(&mut new, &later)?;
    bytes.send("t", b"bytes").map(drop)?;
    bytes.flush()?;
    put(&mut old, &trade(3))?;

    let mut consumer = client.consumer().build_typed::<Trade>();
    consumer.assign("t", None, StartAt::Start)?;
    check(
        0,
        consumer
            .next_batch()?
            .records()
            .next()
            .unwrap()
            .value
            .unwrap(),
    );
    let error = consumer.next_batch().unwrap_err();
    let (expected, found) = (layout_of::<Trade>(), layout_of::<later::Trade>());
    assert_ne!(expected, found);
    let text = error.to_string();
    for part in [
        "t/0",
        "offset 1",
        "Trade",
        &format!("{expected:016x}"),
        &format!("{found:016x}"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        consumer.position("t", ZERO),
        Some(Offset(1)),
        "it stands still"
    );
    consumer.seek("t", ZERO, StartAt::Offset(2))?;
    let text = consumer.next_batch().unwrap_err().to_string();
    assert!(text.contains("values that are bytes"), "{text}");
    consumer.seek("t", ZERO, StartAt::Offset(3))?;
    check(
        3,
        consumer
            .next_batch()?
            .records()
            .next()
            .unwrap()
            .value
            .unwrap(),
    );

    let mut consumer = client.consumer().build();
    consumer.assign("t", None, StartAt::Start)?;
    let mut records = 0;
    while records < 4 {
        records += consumer.next_batch()?.len();
    }
    Ok(())
}

#[derive(rkyv::Archive, rkyv::Serialize, Layout)]
struct Flag(bool);

/// Says that it looks like `Flag`, and doesn't.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Liar(u8);

impl Layout for Liar {
    const NAME: &'static str = "Liar";
    const SHAPE: Shape = Flag::SHAPE;
}

#[test]
fn a_value_that_is_no_archive_of_its_type_is_never_read() -> Result {
    let broker = FakeBroker::start();
    broker.create_topic("t", 1);
    let client = sync::Client::connect(&broker.address())?;
    let mut producer = client.producer().linger(std::time::Duration::from_secs(9));
    producer = producer.batch_records(4);
    let mut producer = producer.build_typed::<Liar>()?;
    for byte in [0, 1, 7, 1] {
        drop(producer.send("t", &Liar(byte))?);
    }
    producer.flush()?;
    let mut consumer = client.consumer().build_typed::<Flag>();
    consumer.assign("t", None, StartAt::Start)?;
    let error = consumer.next_batch().unwrap_err();
    assert!(error.to_string().contains("offset 2 is no Flag"), "{error}");
    let safe = error.safe_offset().expect("there is a way on");
    consumer.seek("t", ZERO, StartAt::Offset(safe.0))?;
    let batch = consumer.next_batch()?;
    let records: Vec<_> = batch.records().collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].offset(), Offset(3));
    assert!(records[0].value.unwrap().0);
    Ok(())
}

/// Layouts are in logs for as long as these are kept: their numbers never change.
#[test]
fn layouts_are_what_they_were() {
    let found = [
        layout_of::<u64>(),
        layout_of::<Side>(),
        layout_of::<Trade>(),
        layout_of::<BTreeMap<String, [Option<u16>; 3]>>(),
        replaced::layout(),
    ];
    assert_eq!(found.map(|layout| format!("{layout:016x}")), LAYOUTS);
}

const LAYOUTS: [&str; 5] = [
    "530be6d838a17e1a",
    "5442acd10a55a197",
    "831f26d48ae6a965",
    "bda05d08c8769501",
    "c00d8219fb9edd4d",
];

macro_rules! variants {
    ($($name:ident $item:item)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            #[derive(rkyv::Archive, rkyv::Serialize, Layout)]
            #[allow(dead_code)]
            $item
            pub(super) fn layout() -> u64 { layout_of::<Item>() }
        }
    )*};
}

struct AsItIs;

impl rkyv::with::ArchiveWith<u64> for AsItIs {
    type Archived = rkyv::Archived<u64>;
    type Resolver = ();

    fn resolve_with(field: &u64, (): (), out: rkyv::Place<Self::Archived>) {
        rkyv::Archive::resolve(field, (), out);
    }
}

impl<S: rkyv::rancor::Fallible + ?Sized> rkyv::with::SerializeWith<u64, S> for AsItIs {
    fn serialize_with(_: &u64, _: &mut S) -> std::result::Result<(), S::Error> {
        Ok(())
    }
}

variants! {
    plain pub(super) struct Item { a: u64, b: u64 }
    swapped pub(super) struct Item { b: u64, a: u64 }
    renamed pub(super) struct Item { a: u64, c: u64 }
    shorter pub(super) struct Item { a: u64 }
    longer pub(super) struct Item { a: u64, b: u64, c: u64 }
    signed pub(super) struct Item { a: u64, b: i64 }
    nested pub(super) struct Item { a: u64, b: (u64,) }
    tuple pub(super) struct Item(u64, u64);
    optional pub(super) struct Item { a: u64, b: Option<u64> }
    list pub(super) struct Item { a: u64, b: Vec<u64> }
    map pub(super) struct Item { a: u64, b: HashMap<u64, u64> }
    replaced pub(super) struct Item { a: u64, #[rkyv(with = AsItIs)] b: u64 }
    one_or_other pub(super) enum Item { A(u64), B(u64) }
    other_or_one pub(super) enum Item { B(u64), A(u64) }
    moved pub(super) enum Item { A(u64, u64), B }
}

#[test]
fn every_difference_makes_another_layout() {
    let layouts = [
        plain::layout(),
        swapped::layout(),
        renamed::layout(),
        shorter::layout(),
        longer::layout(),
        signed::layout(),
        nested::layout(),
        tuple::layout(),
        optional::layout(),
        list::layout(),
        map::layout(),
        replaced::layout(),
        one_or_other::layout(),
        other_or_one::layout(),
        moved::layout(),
    ];
    let mut different = layouts.to_vec();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), layouts.len(), "{layouts:x?}");
}

#[test]
fn a_name_can_be_kept_and_what_changes_no_archive_changes_no_layout() {
    #[derive(rkyv::Archive, rkyv::Serialize, Layout)]
    #[rkyv(compare(PartialEq), derive(Debug))]
    #[layout(name = "Item")]
    #[allow(dead_code)]
    struct Renamed {
        /// With a word about it.
        a: u64,
        b: u64,
    }

    #[derive(rkyv::Archive, rkyv::Serialize, Layout)]
    #[layout(name = "Item")]
    #[allow(dead_code)]
    struct Generic<T> {
        a: T,
        b: u64,
    }
    assert_eq!(Renamed::NAME, "Item");
    assert_eq!(layout_of::<Renamed>(), plain::layout());
    assert_eq!(layout_of::<Generic<u64>>(), plain::layout());
    assert_ne!(layout_of::<Generic<u32>>(), plain::layout());
}
