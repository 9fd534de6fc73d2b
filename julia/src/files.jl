# Model files, which Python writes and reads too (`Model.save`, `Model.load`). The format is safetensors: 8 bytes with the
# length of the header (little-endian), a header in JSON, and the raw numbers. The header gives the dtype, the shape and the
# place of every array by name; its `__metadata__` has the spec as JSON text under "udlbridge". An array in C order with
# shape (a, b) has the memory of a Julia array of size (b, a): that is the form of the arrays of a `Model`.

const DTYPES = Dict{String,DataType}("F32" => Float32, "F64" => Float64)

"""
    save(chain, path)
    save(model, path)

Write a network to a model file, which Python's `udlbridge.from_flux(path)` and [`load`](@ref) read. Not exported:
`UDLBridge.save`. The file appears whole or not at all.

# Errors
`ArgumentError` for a chain that [`from_flux`](@ref) cannot translate.
"""
save(model, path::AbstractString) = save(from_flux(model), path)

function save(model::Model, path::AbstractString)
    header = Dict{String,Any}("__metadata__" => Dict("udlbridge" => JSON.json(model.spec)))
    offset = 0
    for (name, array) in model.params
        dtype = only(key for (key, T) in DTYPES if T === eltype(array))
        stop = offset + sizeof(array)
        header[name] = Dict("dtype" => dtype, "shape" => collect(reverse(size(array))), "data_offsets" => [offset, stop])
        offset = stop
    end
    text = JSON.json(header)
    text *= " "^mod(-ncodeunits(text), 8) # the numbers begin at a multiple of 8 bytes
    partial = "$path.$(getpid()).part"
    try
        open(partial, "w") do io
            write(io, htol(UInt64(ncodeunits(text))), text)
            foreach(((_, array),) -> write(io, htol.(array)), model.params)
        end
        mv(partial, path; force=true)
    finally
        rm(partial; force=true)
    end
    return path
end

"""
    load(path) -> Chain

The network of a model file as a Flux chain in inference mode. Not exported: `UDLBridge.load`.

# Errors
`ArgumentError` where there is no such file, and for one that is truncated, not a model file, or of another format version.
"""
load(path::AbstractString) = to_flux(read_model(path))

"the `Model` in a file; errors as for `load`"
function read_model(path::AbstractString)
    isfile(path) || throw(ArgumentError("there is no model file $path"))
    bytes = read(path)
    unreadable(why) = throw(ArgumentError("$path is not a whole model file of udlbridge: $why"))
    length(bytes) >= 8 || unreadable("it has $(length(bytes)) bytes")
    size = ltoh(only(reinterpret(UInt64, bytes[1:8])))
    size <= length(bytes) - 8 || unreadable("its header is cut off")
    header = try
        JSON.parse(String(bytes[9:(8 + size)]))
    catch
        unreadable("its header is no JSON")
    end
    metadata = get(header, "__metadata__", nothing)
    metadata !== nothing && haskey(metadata, "udlbridge") || unreadable("it has no spec")
    spec = JSON.parse(metadata["udlbridge"])
    version = get(spec, "format", nothing)
    version == FORMAT_VERSION || unreadable("it has format $version, this version reads $FORMAT_VERSION")
    params = Pair{String,Array}[]
    for (name, entry) in header
        name == "__metadata__" && continue
        T = get(DTYPES, entry["dtype"], nothing)
        T === nothing && unreadable("$name has dtype $(entry["dtype"])")
        first, stop = entry["data_offsets"]
        8 + size + stop <= length(bytes) || unreadable("the numbers of $name are cut off")
        numbers = ltoh.(reinterpret(T, bytes[(9 + size + first):(8 + size + stop)]))
        push!(params, String(name) => reshape(numbers, reverse(Int.(entry["shape"]))...))
    end
    return Model(Dict{String,Any}(spec), params)
end
