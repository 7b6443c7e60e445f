//! Compressed clusters: raw deflate streams, or zstd frames.

use backend_block::BlockError;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::header::Compression;

/// How hard deflate tries: zlib's own default.
const LEVEL: flate2::Compression = flate2::Compression::new(6);
/// Longest window of a zstd frame: zstd's own default limit for clusters of 2 MiB and less.
const WINDOW_MAX: u64 = 8 << 20;

/// Unpacks one cluster of `len` bytes. What follows in `data` is ignored.
pub(crate) fn unpack(
    compression: Compression,
    data: &[u8],
    len: usize,
) -> Result<Vec<u8>, BlockError> {
    match compression {
        Compression::Zlib => inflate(data, len),
        Compression::Zstd => unzstd(data, len),
    }
}

fn inflate(data: &[u8], len: usize) -> Result<Vec<u8>, BlockError> {
    let mut out = vec![0; len];
    let mut stream = Decompress::new(false);
    let status = stream.decompress(data, &mut out, FlushDecompress::Finish);
    // Whatever else the stream holds, a cluster is a cluster.
    let is_whole = status.is_ok() && stream.total_out() == len as u64;
    is_whole.then_some(out).ok_or(BlockError::Corrupt)
}

fn unzstd(data: &[u8], len: usize) -> Result<Vec<u8>, BlockError> {
    let mut out = vec![0; len];
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW_MAX);
    let mut rest = data;
    let mut have = 0usize;
    decoder.init(&mut rest).map_err(|_| BlockError::Corrupt)?;
    while have < len {
        // A block at a time: no more than a cluster and a block are ever kept.
        let more = BlockDecodingStrategy::UptoBlocks(1);
        let finished = decoder.decode_blocks(&mut rest, more);
        let finished = finished.map_err(|_| BlockError::Corrupt)?;
        let target = out.get_mut(have..).unwrap_or_default();
        let read = std::io::Read::read(&mut decoder, target).map_err(|_| BlockError::Corrupt)?;
        have = have.saturating_add(read);
        if finished && read == 0 {
            break;
        }
    }
    (have == len).then_some(out).ok_or(BlockError::Corrupt)
}

/// Packs a cluster. `None` when that saves nothing.
pub(crate) fn pack(compression: Compression, data: &[u8]) -> Option<Vec<u8>> {
    let packed = match compression {
        Compression::Zlib => deflate(data)?,
        Compression::Zstd => compress_to_vec(data, CompressionLevel::Fastest),
    };
    (packed.len() < data.len()).then_some(packed)
}

fn deflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut stream = Compress::new(LEVEL, false);
    // What is no shorter is not wanted.
    let mut out = vec![0; data.len().saturating_sub(1)];
    let status = stream.compress(data, &mut out, FlushCompress::Finish);
    let len = usize::try_from(stream.total_out()).ok()?;
    out.truncate(len);
    matches!(status, Ok(Status::StreamEnd)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_whatever_follows_it() {
        for compression in [Compression::Zlib, Compression::Zstd] {
            for len in [512, 65536, 2 << 20] {
                let data: Vec<u8> = (0..len).map(|i| (i / 100 % 251) as u8).collect();
                let mut packed = pack(compression, &data).unwrap();
                packed.extend([0xaa; 300]);
                assert_eq!(
                    unpack(compression, &packed, len),
                    Ok(data),
                    "{compression:?}"
                );
            }
        }
    }

    #[test]
    fn noise_is_not_packed_and_not_unpacked() {
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let data: Vec<u8> = (0..65536).map(|_| noise()).collect();
        for compression in [Compression::Zlib, Compression::Zstd] {
            assert_eq!(pack(compression, &data), None);
            assert_eq!(unpack(compression, &data, 65536), Err(BlockError::Corrupt));
            assert_eq!(unpack(compression, &[], 65536), Err(BlockError::Corrupt));
        }
    }
}
