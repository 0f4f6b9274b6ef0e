compress: int
"""Address of NativeCodec's compress; it needs an output of `most_bytes`, and answers 0 for a shorter one."""
decompress: int
"""Address of NativeCodec's decompress."""
state_size: int
lzo_version: str

def most_bytes(page_size: int) -> int:
    """The longest that a page of so many bytes can become. Raises ValueError for less than 1 or more than 16 MiB."""
