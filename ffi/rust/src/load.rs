//! Reads tokenizer.json. The library's own reader makes generic JSON values of the model, and of each merge once more,
//! before it makes a vocabulary of them. Here a BPE model, which is what the large files hold, is read straight into
//! the library's builder; every other model is left to the library. The outcome is the same (see the test).

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt::{Formatter, Result as FmtResult};
use tokenizers::models::bpe::{BpeBuilder, Merges, Vocab, BPE};
use tokenizers::models::ModelWrapper;
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

/// Truncation and padding are left out: they are training's, and transformers does not apply them either.
#[derive(Deserialize)]
struct File<'a> {
    version: Option<String>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    #[serde(borrow)]
    model: &'a RawValue,
}

/// The id is the model's, or the next free one; the file must give one, but it is not heeded.
#[derive(Deserialize)]
struct Added {
    #[serde(rename = "id")]
    _id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// The tokenizer, and one more than its largest id.
pub fn tokenizer(json: &[u8]) -> Result<(Tokenizer, u32), String> {
    let file: File = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    if let Some(v) = file.version.filter(|v| v != "1.0") {
        return Err(format!("Unknown tokenizer version '{v}'"));
    }
    let (model, largest) = model(file.model.get())?;
    let mut made = Tokenizer::new(model);
    made.with_normalizer(file.normalizer)
        .with_pre_tokenizer(file.pre_tokenizer)
        .with_post_processor(file.post_processor)
        .with_decoder(file.decoder);
    let added: Vec<AddedToken> = file.added_tokens.into_iter().map(|a| a.token).collect();
    made.add_tokens(&added);
    let ids = made.get_added_vocabulary().get_vocab().values().copied();
    let largest = ids.chain(largest).max();
    Ok((made, largest.map_or(0, |id| id.saturating_add(1))))
}

/// The model and its largest id.
fn model(json: &str) -> Result<(ModelWrapper, Option<u32>), String> {
    match serde_json::from_str::<Bpe>(json) {
        Ok(bpe) if bpe.kind.as_deref() == Some("BPE") && !bpe.merges.mixed() => {
            let largest = bpe.vocab.largest;
            Ok((ModelWrapper::BPE(bpe.build()?), largest))
        }
        // Another kind, or an error, which the library words.
        _ => {
            let model: ModelWrapper = serde_json::from_str(json).map_err(|e| e.to_string())?;
            let largest = model.get_vocab().into_values().max();
            Ok((model, largest))
        }
    }
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: Entries,
    merges: MergeList,
}

impl Bpe {
    fn build(self) -> Result<BPE, String> {
        let mut builder = BpeBuilder::new().vocab_and_merges(self.vocab.ids, self.merges.pairs);
        if let Some(p) = self.dropout {
            builder = builder.dropout(p);
        }
        if let Some(token) = self.unk_token {
            builder = builder.unk_token(token);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false))
            .build()
            .map_err(|e| e.to_string())
    }
}

#[derive(Default)]
struct Entries {
    ids: Vocab,
    largest: Option<u32>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Entries::default())
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Entries;

    fn expecting(&self, f: &mut Formatter) -> FmtResult {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Entries, A::Error> {
        while let Some((token, id)) = map.next_entry()? {
            self.largest = self.largest.max(Some(id));
            self.ids.insert(token, id);
        }
        Ok(self)
    }
}

/// Merges are pairs of tokens or, in older files, lines "a b" of which the first may be a comment.
#[derive(Default)]
struct MergeList {
    pairs: Merges,
    num_lines: usize,
    num_pairs: usize,
}

impl MergeList {
    /// The library takes one form or the other.
    fn mixed(&self) -> bool {
        self.num_lines > 0 && self.num_pairs > 0
    }
}

impl<'de> Deserialize<'de> for MergeList {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_seq(MergeList::default())
    }
}

impl<'de> Visitor<'de> for MergeList {
    type Value = MergeList;

    fn expecting(&self, f: &mut Formatter) -> FmtResult {
        f.write_str("merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<MergeList, A::Error> {
        while let Some(merge) = seq.next_element()? {
            match merge {
                Merge::Pair(a, b) => {
                    self.num_pairs += 1;
                    self.pairs.push((a, b));
                }
                Merge::Line(line) => {
                    self.num_lines += 1;
                    if line.starts_with("#version") {
                        continue;
                    }
                    match line.split_once(' ') {
                        Some((a, b)) if !b.contains(' ') => self.pairs.push((a.into(), b.into())),
                        _ => return Err(A::Error::custom("a line that is not two tokens")),
                    }
                }
            }
        }
        Ok(self)
    }
}

enum Merge {
    Pair(String, String),
    Line(String),
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(MergeReader)
    }
}

struct MergeReader;

impl<'de> Visitor<'de> for MergeReader {
    type Value = Merge;

    fn expecting(&self, f: &mut Formatter) -> FmtResult {
        f.write_str("a merge")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
        match (seq.next_element()?, seq.next_element()?) {
            (Some(a), Some(b)) => Ok(Merge::Pair(a, b)),
            _ => Err(A::Error::custom("a merge of fewer than two tokens")),
        }
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<Merge, E> {
        Ok(Merge::Line(line.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose model has these fields beside the vocabulary.
    fn file(model: &str) -> String {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,
            "added_tokens":[{{"id":9,"content":"<end>","single_word":false,"lstrip":false,"rstrip":true,"normalized":false,"special":true}},
                {{"id":1,"content":"b","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false}}],
            "normalizer":{{"type":"NFC"}},"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":true}},
            "post_processor":null,"decoder":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":true}},
            "model":{{{model}}}}}"#
        )
    }

    const VOCAB: &str = r#""vocab":{"a":0,"b":1,"ab":2,"abb":5,"\u0120":3,"c":4}"#;

    #[test]
    fn reads_what_the_library_reads() {
        let merges = [
            r#""merges":[["a","b"],["ab","b"]]"#,
            r##""merges":["#version: 0.2","a b","ab b"]"##,
            r#""merges":["a b",["ab","b"]]"#,
            r#""merges":["a b","ab b c"]"#,
            r#""merges":[["a","b","c"]]"#,
            r#""merges":[["a"]]"#,
            r#""merges":[["a","x"]]"#,
            r#""merges":[]"#,
            r#""merges":null"#,
            r#""merges":[["a",1]]"#,
        ];
        let rest = [
            r#""type":"BPE","#,
            "",
            r#""type":"BPE","dropout":null,"unk_token":"a","fuse_unk":true,"byte_fallback":true,"ignore_merges":true,"other":[1],"#,
            r#""type":"BPE","continuing_subword_prefix":"","end_of_word_suffix":"c","#,
            r#""type":"BPE","continuing_subword_prefix":"ab","#,
            r#""type":"BPE","dropout":2,"#,
            r#""type":"Unigram","#,
            r#""type":"WordLevel","unk_token":"a","#,
        ];
        for m in merges {
            for r in rest {
                let json = file(&format!("{r}{VOCAB},{m}"));
                let want = crate::guard::guard(|| {
                    Tokenizer::from_bytes(json.as_bytes()).map_err(|e| e.to_string())
                });
                let got = crate::guard::guard(|| tokenizer(json.as_bytes()));
                match (got, want) {
                    (Ok((got, num_ids)), Ok(want)) => {
                        let largest = want.get_vocab(true).into_values().max();
                        assert_eq!(num_ids, largest.unwrap() + 1, "{json}");
                        assert_eq!(
                            got.to_string(false).unwrap(),
                            want.to_string(false).unwrap()
                        );
                        for text in ["ab abb", "b<end>  abc", "xa"] {
                            let ids =
                                |t: &Tokenizer| t.encode(text, true).unwrap().get_ids().to_vec();
                            assert_eq!(ids(&got), ids(&want), "{json}");
                        }
                    }
                    (Err(_), Err(_)) => {}
                    (got, want) => {
                        panic!("{json}: {:?}, but the library {:?}", got.err(), want.err())
                    }
                }
            }
        }
    }
}
