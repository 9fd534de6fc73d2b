# Model files, which Python writes and reads too (`Model.save`, `Model.load`). The format is safetensors: 8 bytes with the
# length of the header (little-endian), a header in JSON, and the raw numbers. The header gives the dtype, the shape and the
# place of every array by name; its `__metadata__` has the spec as JSON text under "udlbridge". An array in C order with
# shape (a, b) has the memory of a Julia array of size (b, a): that is the form of the arrays of a `Model`.

const DTYPES = Dict{String,DataType}("F32" => Float32, "F64" => Float64, "I64" => Int64, "BOOL" => Bool)

"Versions of the specs of graphs in a model file, of one input and of several; the Python side has the same."
const GRAPH_VERSIONS = (2, 3)

"""
    save(chain, path)
    save(model, path)
    save(model, path, X)

Write a network to a model file, which Python's `udlbridge.from_flux(path)` and [`load`](@ref) read: a list of layers, or, with an
example of its samples `X`, the graph that any model computes. Not exported: `UDLBridge.save`. The file appears whole or not at all.

# Errors
`ArgumentError` for a model that [`from_flux`](@ref) cannot translate.
"""
save(model, path::AbstractString) = save(from_flux(model), path)

save(model, path::AbstractString, X::AbstractArray) = save(from_flux(model, X), path)
save(model::Model, path::AbstractString) = write_file(path, JSON.json(model.spec), model.params)
save(g::Graph, path::AbstractString) = write_file(path, spec_text(g), [parameters(g); collect(g.buffers)])

"write a spec and arrays by name to a file of safetensors"
function write_file(path::AbstractString, spec::AbstractString, arrays)
    header = Dict{String,Any}("__metadata__" => Dict("udlbridge" => spec))
    offset = 0
    for (name, array) in arrays
        dtype = only(key for (key, T) in DTYPES if T === eltype(array))
        stop = offset + sizeof(array)
        header[name] = Dict("dtype" => dtype, "shape" => Int[reverse(size(array))...], "data_offsets" => [offset, stop])
        offset = stop
    end
    text = JSON.json(header)
    text *= " "^mod(-ncodeunits(text), 8) # the numbers begin at a multiple of 8 bytes
    # A name of its own: another task, thread or process may be writing to the same path.
    partial = tempname(dirname(abspath(path)); cleanup=false)
    try
        open(partial, "w") do io
            write(io, htol(UInt64(ncodeunits(text))), text)
            # Not `htol.`, which makes a BitArray, of eight to a byte, of an array of Bool.
            foreach(((_, array),) -> write(io, map(htol, array)), arrays)
        end
        mv(partial, path; force=true)
    finally
        rm(partial; force=true)
    end
    return path
end

"""
    load(path) -> Chain or Graph

The network of a model file: a list of layers as a Flux chain in inference mode, a graph as a [`Graph`](@ref). Not exported:
`UDLBridge.load`.

# Errors
`ArgumentError` where there is no such file, and for one that is truncated, not a model file, or of another format version.
"""
function load(path::AbstractString)
    text, arrays = read_file(path)
    spec = parsed(text, () -> unreadable(path, "its spec is no JSON object"))
    version = get(spec, "format", nothing)
    version in GRAPH_VERSIONS && return graph(text, Dict(arrays))
    version == FORMAT_VERSION && return to_flux(Model(Dict{String,Any}(spec), arrays))
    unreadable(path, "it has format $version, this version reads $FORMAT_VERSION, $(join(GRAPH_VERSIONS, " and "))")
end

unreadable(path, why) = throw(ArgumentError("$path is not a whole model file of udlbridge: $why"))

"the spec's text and the arrays by name in a file of safetensors; errors as for `load`"
function read_file(path::AbstractString)
    isfile(path) || throw(ArgumentError("there is no model file $path"))
    bytes = read(path)
    length(bytes) >= 8 || unreadable(path, "it has $(length(bytes)) bytes")
    size = ltoh(only(reinterpret(UInt64, bytes[1:8])))
    size <= length(bytes) - 8 || unreadable(path, "its header is cut off")
    header = parsed(String(bytes[9:(8 + size)]), () -> unreadable(path, "its header is no JSON object"))
    metadata = get(header, "__metadata__", nothing)
    metadata isa AbstractDict && get(metadata, "udlbridge", nothing) isa AbstractString || unreadable(path, "it has no spec")
    arrays = Pair{String,Array}[]
    for (name, entry) in header
        name == "__metadata__" && continue
        T, dims, (first, stop) = described(entry, what -> unreadable(path, "$name has $what"))
        0 <= first <= stop <= length(bytes) - 8 - size || unreadable(path, "the numbers of $name are cut off")
        stop - first == sizeof(T) * prod(big, dims; init=big(1)) ||
            unreadable(path, "$name has $(stop - first) bytes for shape $dims")
        numbers = ltoh.(reinterpret(T, bytes[(9 + size + first):(8 + size + stop)]))
        push!(arrays, String(name) => reshape(numbers, reverse(dims)...))
    end
    return String(metadata["udlbridge"]), arrays
end

"the object in JSON text; `otherwise()` where there is none"
function parsed(text::AbstractString, otherwise)
    found = try
        JSON.parse(text)
    catch
        nothing
    end
    return found isa AbstractDict ? found : otherwise()
end

"element type, sizes and offsets of the numbers of one array, from its entry in the header"
function described(entry, refused)
    entry isa AbstractDict || refused("no description")
    T = get(DTYPES, get(entry, "dtype", nothing), nothing)
    T === nothing && refused("dtype $(get(entry, "dtype", nothing))")
    dims, offsets = get(entry, "shape", nothing), get(entry, "data_offsets", nothing)
    whole(list) = list isa AbstractVector && all(n -> n isa Integer && 0 <= n < 2^48, list)
    whole(dims) && whole(offsets) && length(offsets) == 2 || refused("shape $dims and data_offsets $offsets")
    return T, Int.(dims), Int.(offsets)
end
