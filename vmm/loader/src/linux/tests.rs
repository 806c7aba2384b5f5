//! Kernels that are made here: a vmlinux of two segments, packed in each way.

use super::kernel::Kernel;
use super::unpack::{self, unpack_up_to};
use super::*;
use crate::{Image, prepare};
use ft_protocol::log::{BootProtocol, Counts, CpuKind, MachineConfig, SOFT_CPU_MODEL};
use linux_loader::loader::bootparam::{boot_params, setup_header};
use lockstep_memory::Ram;
use std::io::Write;
use std::mem::offset_of;

const ENTRY: u64 = 0x100_0040;
const TEXT: u64 = 0x100_0000;
const DATA: u64 = 0x120_0000;
/// The second segment takes more memory than it has in the file.
const DATA_MEMORY: u64 = 0x8_0000;

/// An ELF file with two segments. Its content does not pack to nothing.
fn vmlinux() -> Vec<u8> {
    let content = |seed: u64, len: u64| -> Vec<u8> {
        let word = |i: u64| xxhash_rust::xxh3::xxh3_64(&(seed + i / 4).to_le_bytes()).to_le_bytes();
        (0..len / 8).flat_map(word).collect()
    };
    let (text, data) = (content(1, 0x9000), content(7777, 0x3000));
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, version.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [ENTRY, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    // Flags; sizes and numbers of headers.
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let mut offset = 64 + 2 * 56u64;
    for (address, filed, memory) in [
        (TEXT, text.len() as u64, text.len() as u64),
        (DATA, data.len() as u64, DATA_MEMORY),
    ] {
        file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
        for word in [
            offset,
            0xffff_ffff_8000_0000 + address,
            address,
            filed,
            memory,
            0x1000,
        ] {
            file.extend(word.to_le_bytes());
        }
        offset += filed;
    }
    [file, text, data].concat()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(data);
    let len = (block.len() as u32).to_le_bytes();
    [&[0x02, 0x21, 0x4c, 0x18], &len[..], &block].concat()
}

type Packer = fn(&[u8]) -> Vec<u8>;

const PACKERS: [(&str, Packer); 4] = [("gzip", gzip), ("xz", xz), ("zstd", zstd), ("lz4", lz4)];

/// A bzImage with this payload, at the end of which its build adds what it unpacks to.
fn bzimage(payload: &[u8], unpacked: usize) -> Vec<u8> {
    let mut file = vec![0; 3 * 512];
    let setup = offset_of!(boot_params, hdr);
    let mut put = |offset: usize, value: &[u8]| {
        file[setup + offset..][..value.len()].copy_from_slice(value);
    };
    put(offset_of!(setup_header, setup_sects), &[1]);
    put(offset_of!(setup_header, boot_flag), &[0x55, 0xaa]);
    put(offset_of!(setup_header, jump), &[0xeb, 0x66]);
    put(offset_of!(setup_header, header), b"HdrS");
    put(offset_of!(setup_header, version), &[0x0f, 0x02]);
    put(offset_of!(setup_header, xloadflags), &[3, 0]);
    put(
        offset_of!(setup_header, payload_offset),
        &512u32.to_le_bytes(),
    );
    let len = payload.len() as u32 + 4;
    put(offset_of!(setup_header, payload_length), &len.to_le_bytes());
    file.extend(payload);
    file.extend((unpacked as u32).to_le_bytes());
    file
}

fn parts<'a>(kernel: &'a [u8]) -> Parts<'a> {
    Parts {
        kernel,
        initrd: b"an initrd",
        command_line: b"console=ttyS0 quiet",
    }
}

fn config(mem_mib: u32) -> MachineConfig {
    let cpu = CpuKind::Soft {
        model: SOFT_CPU_MODEL,
    };
    MachineConfig::new(mem_mib)
        .on(cpu, Counts::Instructions)
        .for_boot(BootProtocol::Linux)
}

fn read(ram: &Ram, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.read(at, &mut bytes).unwrap();
    bytes
}

#[track_caller]
fn sentence(result: Result<Image, ImageError>) -> String {
    let sentence = result.unwrap_err().to_string();
    assert!(!sentence.contains('\n'), "{sentence}");
    sentence
}

#[test]
fn a_kernel_is_loaded_however_it_is_packed() {
    let plain = vmlinux();
    let mut kernels = vec![("not", plain.clone())];
    kernels.extend(PACKERS.map(|(name, pack)| (name, bzimage(&pack(&plain), plain.len()))));
    for (packed, kernel) in kernels {
        assert!(is_linux(&kernel), "{packed}");
        let image = Image::linux("vmlinuz", &parts(&kernel)).unwrap();
        // As it travels.
        let image = Image::parse("vmlinuz", image.bytes().to_vec()).unwrap();
        assert_eq!(image.boot(), BootProtocol::Linux);
        let ram = Ram::new(64).unwrap();
        let state = prepare(&ram, &config(64), &image).unwrap();
        assert_eq!(state.registers.rip, ENTRY);
        let offset = plain.len() - 0xc000;
        assert_eq!(
            read(&ram, TEXT, 0x9000),
            plain[offset..offset + 0x9000],
            "{packed}"
        );
        assert_eq!(
            read(&ram, DATA, 0x3000),
            plain[offset + 0x9000..],
            "{packed}"
        );
        // RSI leads to the parameters.
        let params = state.registers.general[4];
        let field = |offset: usize| {
            let bytes = read(&ram, params + offset as u64, 4);
            u64::from(u32::from_le_bytes(bytes.try_into().unwrap()))
        };
        assert_eq!(
            read(&ram, params + offset_of!(boot_params, hdr.header) as u64, 4),
            b"HdrS"
        );
        let line = field(offset_of!(boot_params, hdr.cmd_line_ptr));
        assert_eq!(read(&ram, line, 20), b"console=ttyS0 quiet\0");
        let initrd = field(offset_of!(boot_params, hdr.ramdisk_image));
        assert_eq!(field(offset_of!(boot_params, hdr.ramdisk_size)), 9);
        assert_eq!(read(&ram, initrd, 9), b"an initrd");
        assert!(initrd >= DATA + DATA_MEMORY);
        let root = field(offset_of!(boot_params, acpi_rsdp_addr));
        assert_eq!(read(&ram, root, 8), b"RSD PTR ");
        assert_eq!(
            read(
                &ram,
                params + offset_of!(boot_params, e820_entries) as u64,
                1
            ),
            [3]
        );
    }
}

#[test]
fn every_acpi_table_sums_up_to_zero() {
    let tables = acpi::tables(&config(64), 0xe_0000);
    let mut found = Vec::new();
    for at in (64..tables.len()).step_by(64) {
        let table = &tables[at..];
        let name = String::from_utf8_lossy(&table[..4]).into_owned();
        if !["FACP", "DSDT", "XSDT"].contains(&name.as_str()) {
            continue;
        }
        let len = u32::from_le_bytes(table[4..8].try_into().unwrap()) as usize;
        let sum = table[..len]
            .iter()
            .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "{name}");
        found.push(name);
    }
    assert_eq!(found, ["DSDT", "FACP", "XSDT"]);
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let plain = vmlinux();
    let (mut refused, mut taken) = (0, 0);
    for (_, pack) in PACKERS {
        let sound = bzimage(&pack(&plain), plain.len());
        let mut look = |kernel: &[u8]| match Kernel::parse(kernel) {
            Ok(kernel) => {
                assert!(kernel.end >= TEXT);
                taken += 1;
            }
            Err(_) => refused += 1,
        };
        for len in (0..sound.len()).step_by(173) {
            look(&sound[..len]);
        }
        for at in (0x1f1..0x270).chain((0x400..sound.len()).step_by(211)) {
            for change in [1, 0x80, 0xff] {
                let mut kernel = sound.clone();
                kernel[at] ^= change;
                look(&kernel);
            }
        }
    }
    // The headers of the vmlinux.
    for at in 0..64 + 2 * 56 {
        for change in [1, 0x80, 0xff] {
            let mut kernel = plain.clone();
            kernel[at] ^= change;
            let _any = Kernel::parse(&kernel);
        }
    }
    assert!(
        refused > 300 && taken > 300,
        "{refused} refused, {taken} taken"
    );
}

#[test]
fn an_image_that_was_damaged_on_its_way_is_refused() {
    let kernel = vmlinux();
    let sound = parts(&kernel).pack().unwrap();
    for len in [8, 20, 31, 32, 40, sound.len() - 1] {
        let told = sentence(Image::parse("vmlinuz", sound[..len].to_vec()));
        assert!(told.contains("it is cut"), "{told}");
    }
    let told = sentence(Image::parse("vmlinuz", [&sound[..], b"x"].concat()));
    assert!(told.contains("something follows"), "{told}");
    for length in 0..3 {
        let mut damaged = sound.clone();
        damaged[MAGIC.len() + 8 * length..][..8].fill(0xff);
        let told = sentence(Image::parse("vmlinuz", damaged));
        assert!(told.contains("it is cut"), "{told}");
    }
}

#[test]
fn what_no_kernel_takes_is_refused_with_a_sentence() {
    let kernel = vmlinux();
    let with = |command_line: &[u8]| {
        let parts = Parts {
            command_line,
            ..parts(&kernel)
        };
        Image::linux("vmlinuz", &parts)
    };
    assert!(with(&[b'x'; MAX_COMMAND_LINE]).is_ok());
    assert!(sentence(with(&[b'x'; MAX_COMMAND_LINE + 1])).contains("--append"));
    assert!(sentence(with(b"a\0b")).contains("zero byte"));
    let told = sentence(Image::linux("hello", &parts(b"\x7fELF")));
    assert!(told.contains("no Linux kernel"), "{told}");
    let initrd = vec![0; MAX_LINUX_BYTES];
    let parts = Parts {
        initrd: &initrd,
        ..parts(&kernel)
    };
    assert!(sentence(Image::linux("vmlinuz", &parts)).contains("larger than"));
}

#[test]
fn a_bomb_is_not_unpacked() {
    let bomb = vec![0; 1 << 20];
    for (name, pack) in PACKERS {
        let packed = pack(&bomb);
        assert_eq!(
            unpack_up_to(&packed, 1 << 20).unwrap().len(),
            1 << 20,
            "{name}"
        );
        let error = unpack_up_to(&packed, (1 << 20) - 1).unwrap_err();
        assert!(
            matches!(error, NotBootable::UnpacksTooLarge),
            "{name}: {error}"
        );
    }
    let error = unpack::unpack(b"BZh9").unwrap_err().to_string();
    assert!(error.contains("not known"), "{error}");
}

#[test]
fn a_machine_that_is_too_small_is_refused() {
    let kernel = vmlinux();
    let image = Image::linux("vmlinuz", &parts(&kernel)).unwrap();
    let small = prepare(&Ram::new(18).unwrap(), &config(18), &image).unwrap_err();
    let told = small.to_string();
    assert!(
        told.contains("needs 20 MiB") && told.contains("--mem"),
        "{told}"
    );
    assert!(prepare(&Ram::new(20).unwrap(), &config(20), &image).is_ok());
    // Nor does it start as another kind of guest.
    let other = prepare(&Ram::new(64).unwrap(), &MachineConfig::new(64), &image).unwrap_err();
    assert!(other.to_string().contains("does not start as"), "{other}");
}
