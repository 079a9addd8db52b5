"""The block grid: how the observed pixels of a data set are cut.

Pure functions of the number of pixels. The grid never depends on the number of ranks
or devices: that is what makes the sums of a run the same however it is cut.
"""

from dataclasses import dataclass

SMALLEST_BLOCK = 4096
MOST_BLOCKS = 4096
LARGEST_CHUNK = 65536
FEWEST_CHUNKS = 32


@dataclass(frozen=True)
class Grid:
    """Observed pixels 0 .. npix-1 (ascending NEST), in blocks, in chunks of blocks.

    Attributes:
        npix: Observed pixels of the whole data set, all ranks together.
        block: Pixels per block: the unit of computation and of summation.
        chunk: Pixels per chunk, a whole number of blocks: the unit of storage and of
            ownership. A rank owns a contiguous run of chunks.
    """

    npix: int
    block: int
    chunk: int

    def __post_init__(self):
        if self.npix < 1 or self.block < 1 or self.chunk % self.block:
            raise ValueError(
                "`Grid(npix, block, chunk)` needs npix >= 1 and a chunk that is a "
                f"whole number of blocks, got {self.npix}, {self.block}, {self.chunk}."
            )

    @classmethod
    def of(cls, npix: int) -> "Grid":
        """Return the grid of a data set with `npix` observed pixels."""
        block = SMALLEST_BLOCK
        while -(-npix // block) > MOST_BLOCKS:
            block *= 2
        chunk = block
        while 2 * chunk <= LARGEST_CHUNK and npix >= 2 * chunk * FEWEST_CHUNKS:
            chunk *= 2
        return cls(npix, block, chunk)

    @property
    def nblocks(self) -> int:
        """Number of blocks; the last one may be part empty."""
        return -(-self.npix // self.block)

    @property
    def nchunks(self) -> int:
        """Number of chunks; the last one may be part empty."""
        return -(-self.npix // self.chunk)

    def chunk_range(self, chunk: int) -> tuple[int, int]:
        """Return the pixels [start, stop) of one chunk."""
        return chunk * self.chunk, min((chunk + 1) * self.chunk, self.npix)

    def whole_chunks(self, start: int, npix: int) -> range | None:
        """Return the chunks that a run of pixels is made of, None if it cuts one."""
        stop = start + npix
        if npix and (start % self.chunk or (stop % self.chunk and stop != self.npix)):
            return None
        return range(-(-start // self.chunk), -(-stop // self.chunk))

    def rank_chunks(self, rank: int, size: int) -> tuple[int, int]:
        """Return the chunks [first, last) that a rank owns; may be empty."""
        return rank * self.nchunks // size, (rank + 1) * self.nchunks // size

    def rank_pixels(self, rank: int, size: int) -> tuple[int, int]:
        """Return the pixels [start, stop) that a rank owns; may be empty."""
        first, last = self.rank_chunks(rank, size)
        return min(first * self.chunk, self.npix), min(last * self.chunk, self.npix)
