//! docs/protocol.md says where keys go in enough detail for other clients: its test values are
//! compared with what this one does.

use std::path::Path;

use ringway_client::{PartitionIndex, Partitions, key_hash, key_partition};

/// The cells of a table's rows, without its head.
fn rows(document: &str, head: &str) -> Vec<Vec<String>> {
    let (_, rest) = document.split_once(&format!("\n{head}\n")).expect(head);
    let rows = rest
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    })
    .collect()
}

fn list(text: &str) -> Vec<PartitionIndex> {
    let numbers = text.split(',').filter(|part| !part.trim().is_empty());
    numbers
        .map(|part| PartitionIndex(part.trim().parse().unwrap()))
        .collect()
}

#[test]
fn keys_go_where_the_document_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let document = std::fs::read_to_string(path).unwrap();
    let plain = rows(
        &document,
        "| key | hash | of 1 | of 4 | of 5 | of 100 | of 100,000 |",
    );
    assert!(plain.len() >= 4);
    for row in plain {
        let key = if row[0] == "(empty)" { "" } else { &row[0] };
        let key = key.as_bytes();
        assert_eq!(row[1], format!("{:#018x}", key_hash(key)), "{row:?}");
        for (cell, partitions) in row[2..].iter().zip([1, 4, 5, 100, 100_000]) {
            assert_eq!(*cell, key_partition(key, partitions).to_string(), "{row:?}");
        }
    }
    let retired = rows(&document, "| key | of | retired | goes to |");
    assert!(retired.len() >= 4);
    for row in retired {
        let count = row[1].parse().unwrap();
        // "0-98" stands for a run.
        let retired = match row[2].split_once('-') {
            Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap())
                .map(PartitionIndex)
                .collect(),
            None => list(&row[2]),
        };
        let partitions = Partitions::without(count, &retired).unwrap();
        let found = partitions.of_key(row[0].as_bytes());
        assert_eq!(row[3], found.to_string(), "{row:?}");
    }
}
