"""zstd as C functions for the compiled data path; there are docstrings in the module."""

def bind(
    create_compressor: int,
    free_compressor: int,
    create_decompressor: int,
    free_decompressor: int,
    compress: int,
    decompress: int,
    content_size: int,
    frame_size: int,
    /,
) -> tuple[int, int]: ...
