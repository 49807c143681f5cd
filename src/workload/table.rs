//! Rows of tables as objects: CSV and Parquet. Of a table of any size, only the rows that are wanted are
//! kept.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::{Map, Value};

use super::{Sampling, python_random};

/// A row and what the messages call its place.
pub(super) type Row = (String, Map<String, Value>);

/// Rows of a CSV file with a header, in a random order, as many as are wanted.
pub(super) fn csv(path: &Path, name: &str, sampling: &Sampling<'_>) -> anyhow::Result<Vec<Row>> {
    let failed = || format!("read the dataset `{name}`");
    let mut reader = csv::Reader::from_reader(File::open(path).with_context(failed)?);
    let headers = reader.headers().with_context(failed)?.clone();
    let mut places = Vec::new();
    let mut record = csv::StringRecord::new();
    loop {
        let position = reader.position().clone();
        if !reader.read_record(&mut record).with_context(failed)? {
            break;
        }
        places.push(position);
    }
    python_random::shuffle(&mut places, sampling.seed);
    places.truncate(sampling.requests.unwrap_or(usize::MAX));
    let mut rows = Vec::new();
    for place in places {
        let line = place.line();
        reader.seek(place).with_context(failed)?;
        reader.read_record(&mut record).with_context(failed)?;
        let cells = headers.iter().zip(record.iter());
        let row = cells
            .filter(|(_, cell)| !cell.is_empty())
            .map(|(header, cell)| (header.to_owned(), Value::String(cell.to_owned())))
            .collect();
        rows.push((format!("line {line}"), row));
    }
    Ok(rows)
}

/// Rows of a Parquet file, in a random order, as many as are wanted.
pub(super) fn parquet(
    path: &Path,
    name: &str,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Vec<Row>> {
    let failed = || format!("read the dataset `{name}`");
    let file = File::open(path).with_context(failed)?;
    let reader = SerializedFileReader::new(file).with_context(failed)?;
    let count = reader.metadata().file_metadata().num_rows();
    let mut order: Vec<usize> = (0..usize::try_from(count)?).collect();
    python_random::shuffle(&mut order, sampling.seed);
    order.truncate(sampling.requests.unwrap_or(usize::MAX));
    let mut rows: Vec<Option<Row>> = vec![None; order.len()];
    let wanted: HashMap<usize, usize> =
        order.iter().enumerate().map(|(place, &row)| (row, place)).collect();
    for (index, row) in reader.get_row_iter(None).with_context(failed)?.enumerate() {
        let row = row.with_context(failed)?;
        if let Some(&place) = wanted.get(&index)
            && let Value::Object(cells) = row.to_json_value()
        {
            rows[place] = Some((format!("row {}", index + 1), cells));
        }
    }
    Ok(rows.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::column::writer::ColumnWriter;
    use parquet::data_type::ByteArray;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    #[test]
    fn rows_of_a_parquet_file_are_objects_by_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.parquet");
        let schema = "message rows { required binary question (UTF8); optional int64 length; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let file = File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            match column.untyped() {
                ColumnWriter::ByteArrayColumnWriter(column) => {
                    let texts = ["one", "two", "three"].map(ByteArray::from);
                    column.write_batch(&texts, None, None).unwrap();
                }
                ColumnWriter::Int64ColumnWriter(column) => {
                    column.write_batch(&[7, 9], Some(&[1, 0, 1]), None).unwrap();
                }
                _ => panic!("a column that the schema has not"),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();

        let mut rows = parquet(&path, "d", &Sampling::new(None, 10, 0)).unwrap();
        rows.sort_by_key(|(place, _)| place.clone());
        let shown: Vec<String> = rows
            .iter()
            .map(|(place, row)| format!("{place} {}", Value::from(row.clone())))
            .collect();
        assert_eq!(
            shown,
            [
                r#"row 1 {"length":7,"question":"one"}"#,
                r#"row 2 {"length":null,"question":"two"}"#,
                r#"row 3 {"length":9,"question":"three"}"#
            ]
        );
        assert_eq!(parquet(&path, "d", &Sampling::new(None, 2, 0)).unwrap().len(), 2);
        std::fs::write(&path, "no table").unwrap();
        let error = parquet(&path, "d", &Sampling::new(None, 2, 0)).unwrap_err();
        assert!(format!("{error:#}").contains("read the dataset `d`"), "{error:#}");
    }
}
