//! What the archives of a type look like, as one number that travels in the batch header.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::num;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringway_wire::limits::ALIGNMENT;
use rkyv::Archive;
use rkyv::primitive::{ArchivedU32, ArchivedUsize};

/// A type whose values can travel in batches as they are: its archives have a layout that has a
/// number. Derive it beside rkyv's `Archive`:
///
/// ```
/// use ringway_client::{Layout, layout_of, rkyv};
///
/// #[derive(rkyv::Archive, rkyv::Serialize, Layout)]
/// struct Trade {
///     symbol: String,
///     price: u64,
///     quantity: u32,
/// }
///
/// assert_ne!(layout_of::<Trade>(), 0);
/// ```
///
/// Two builds have the same layout for a type if its name and its fields' names, order and types
/// are the same, through all depths, and rkyv's format features are. Anything else is another
/// layout, and a consumer says so instead of reading nonsense. `#[layout(name = "…")]` replaces the
/// type's name: give it that of before when you rename the type, or one with a version in it when
/// you change what a field means.
///
/// A type that contains itself (a tree, say) can't derive its layout; it can say one:
/// `const SHAPE: Shape = Shape::new("Tree/1").of::<Self>();`.
pub trait Layout: Archive {
    /// The name that errors show.
    const NAME: &'static str;
    /// What the layout's number is made of.
    const SHAPE: Shape;
}

/// What is known of a type's archives. Built up word by word; different calls make different
/// shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    hash: u64,
    /// The largest alignment among the archive's parts.
    alignment: usize,
}

impl Shape {
    /// A shape of a name and nothing else.
    #[must_use]
    pub const fn new(name: &str) -> Self {
        let empty = Self {
            hash: 0xcbf2_9ce4_8422_2325,
            alignment: 1,
        };
        empty.word(name)
    }

    /// Adds a word: a field's name, for example.
    #[must_use]
    pub const fn word(self, word: &str) -> Self {
        let bytes = word.as_bytes();
        let mut hash = self.number(bytes.len() as u64).hash;
        let mut index = 0;
        while index < bytes.len() {
            hash = fnv(hash, bytes[index]);
            index += 1;
        }
        Self { hash, ..self }
    }

    /// Adds a part of another shape: a field's type.
    #[must_use]
    pub const fn part(self, part: Self) -> Self {
        let mut sum = self.number(part.hash);
        if part.alignment > sum.alignment {
            sum.alignment = part.alignment;
        }
        sum
    }

    /// Ends a list of words and parts.
    #[must_use]
    pub const fn end(self) -> Self {
        self.number(u64::MAX)
    }

    /// Adds the size and alignment of a type's archive.
    #[must_use]
    pub const fn of<T: Archive>(self) -> Self {
        let (size, alignment) = (size_of::<T::Archived>(), align_of::<T::Archived>());
        let mut sum = self.number(size as u64).number(alignment as u64);
        if alignment > sum.alignment {
            sum.alignment = alignment;
        }
        sum
    }

    const fn number(self, number: u64) -> Self {
        let bytes = number.to_le_bytes();
        let mut hash = self.hash;
        let mut index = 0;
        while index < bytes.len() {
            hash = fnv(hash, bytes[index]);
            index += 1;
        }
        Self { hash, ..self }
    }
}

const fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// The number that batches of `T` carry. Never 0. Compiling it fails for a type of which a part
/// has to stand at more than a multiple of 16:
///
/// ```compile_fail
/// use ringway_client::{Layout, layout_of, rkyv};
///
/// #[derive(rkyv::Archive, rkyv::Serialize, Layout)]
/// #[rkyv(attr(repr(C, align(32))))]
/// struct Wide(u64);
///
/// #[derive(rkyv::Archive, rkyv::Serialize, Layout)]
/// struct Holding(Vec<Wide>);
///
/// layout_of::<Holding>();
/// ```
#[must_use]
pub const fn layout_of<T: Layout>() -> u64 {
    const {
        assert!(
            T::SHAPE.alignment <= ALIGNMENT,
            "values stand at multiples of 16: an archive with parts aligned to more can't be read \
             in place"
        );
    }
    // What rkyv's features make of integers and pointers, wherever they are in the archive.
    let pointer = size_of::<ArchivedUsize>() as u64;
    let big = <ArchivedU32 as ByteOrder>::BIG as u64;
    let hash = T::SHAPE.of::<T>().number(pointer).number(big).hash;
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    match hash ^ (hash >> 31) {
        0 => 1,
        hash => hash,
    }
}

/// The order of an archived integer's bytes.
trait ByteOrder {
    const BIG: bool;
}

impl ByteOrder for rkyv::rend::u32_le {
    const BIG: bool = false;
}

impl ByteOrder for rkyv::rend::u32_be {
    const BIG: bool = true;
}

macro_rules! plain {
    ($($type:ty = $name:literal)*) => {$(
        impl Layout for $type {
            const NAME: &'static str = $name;
            const SHAPE: Shape = Shape::new($name);
        }
    )*};
}

plain! {
    () = "()" bool = "bool" char = "char" String = "String"
    u8 = "u8" u16 = "u16" u32 = "u32" u64 = "u64" u128 = "u128" usize = "usize"
    i8 = "i8" i16 = "i16" i32 = "i32" i64 = "i64" i128 = "i128" isize = "isize"
    f32 = "f32" f64 = "f64" Duration = "Duration"
    num::NonZeroU8 = "NonZeroU8" num::NonZeroU16 = "NonZeroU16" num::NonZeroU32 = "NonZeroU32"
    num::NonZeroU64 = "NonZeroU64" num::NonZeroU128 = "NonZeroU128"
    num::NonZeroI8 = "NonZeroI8" num::NonZeroI16 = "NonZeroI16" num::NonZeroI32 = "NonZeroI32"
    num::NonZeroI64 = "NonZeroI64" num::NonZeroI128 = "NonZeroI128"
    std::net::Ipv4Addr = "Ipv4Addr" std::net::Ipv6Addr = "Ipv6Addr" std::net::IpAddr = "IpAddr"
}

macro_rules! holding_one {
    ($($type:ty = $name:literal)*) => {$(
        impl<T: Layout> Layout for $type {
            const NAME: &'static str = $name;
            const SHAPE: Shape = Shape::new($name).part(T::SHAPE).of::<T>();
        }
    )*};
}

holding_one! {
    Option<T> = "Option" Vec<T> = "Vec" VecDeque<T> = "VecDeque"
    Box<T> = "Box" Rc<T> = "Rc" Arc<T> = "Arc"
    Box<[T]> = "Box<[]>" Rc<[T]> = "Rc<[]>" Arc<[T]> = "Arc<[]>"
}

plain! {
    Box<str> = "Box<str>" Rc<str> = "Rc<str>" Arc<str> = "Arc<str>"
}

impl<T: Layout, const N: usize> Layout for [T; N] {
    const NAME: &'static str = "[]";
    const SHAPE: Shape = Shape::new("[]").number(N as u64).part(T::SHAPE).of::<T>();
}

impl<T: Layout, E: Layout> Layout for Result<T, E> {
    const NAME: &'static str = "Result";
    const SHAPE: Shape = Shape::new("Result")
        .part(T::SHAPE)
        .part(E::SHAPE)
        .of::<Self>();
}

impl<K: Layout + Ord> Layout for BTreeSet<K>
where
    Self: Archive,
{
    const NAME: &'static str = "BTreeSet";
    const SHAPE: Shape = Shape::new("BTreeSet").part(K::SHAPE).of::<K>();
}

impl<K: Layout + Ord, V: Layout> Layout for BTreeMap<K, V>
where
    Self: Archive,
{
    const NAME: &'static str = "BTreeMap";
    const SHAPE: Shape = Shape::new("BTreeMap")
        .part(K::SHAPE)
        .part(V::SHAPE)
        .of::<K>()
        .of::<V>();
}

impl<K: Layout, S> Layout for HashSet<K, S>
where
    Self: Archive,
{
    const NAME: &'static str = "HashSet";
    const SHAPE: Shape = Shape::new("HashSet").part(K::SHAPE).of::<K>();
}

impl<K: Layout, V: Layout, S> Layout for HashMap<K, V, S>
where
    Self: Archive,
{
    const NAME: &'static str = "HashMap";
    const SHAPE: Shape = Shape::new("HashMap")
        .part(K::SHAPE)
        .part(V::SHAPE)
        .of::<K>()
        .of::<V>();
}

macro_rules! tuples {
    ($(($($type:ident)*))*) => {$(
        impl<$($type: Layout),*> Layout for ($($type,)*) {
            const NAME: &'static str = "tuple";
            const SHAPE: Shape = Shape::new("tuple")$(.part($type::SHAPE))*.end().of::<Self>();
        }
    )*};
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) }
