"""Checks where and how the array of an HDF5 file is stored: a few bytes can declare terabytes, or refer to other files."""

_MOST_COMPRESSED = 2000
"""Bytes that a byte of a file can stand for; gzip reaches 1032."""
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""The filters of usual files. HDF5 would look for a plugin, which is code, for those that it does not know."""
_PACKING = (1, 32000)


def filters_of(dataset):
    """The numbers of the filters of a `h5py.Dataset`, in the order in which they were applied."""
    creation = dataset.id.get_create_plist()
    return [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]


def why_untrusted(dataset):
    """Why a `h5py.Dataset` must not be read, the end of a sentence; an empty string if it is stored as large as it declares."""
    if dataset.is_virtual or dataset.external:
        return "is stored in another file"
    filters = filters_of(dataset)
    packing = [number for number in filters if number in _PACKING]
    if len(packing) > 1 or any(number not in _FILTERS for number in filters):
        return f"is stored with the filters {filters}; usual files have {', '.join(_FILTERS.values())}, and compress once"
    if dataset.nbytes > dataset.id.get_storage_size() * (_MOST_COMPRESSED if packing else 1):
        return f"has the shape {dataset.shape}, more than the file contains"
    return ""
