# What Python calls: arrays with reversed axes and a spec in, arrays with reversed axes out. No computation here.
# The names are not exported; from Julia, use `build`, `ntk`, `jacobian` and their kin.

"a chain from the spec's JSON text and two parallel lists, names and canonical arrays with reversed axes"
function bridge_build(spec::AbstractString, names, arrays)
    params = Dict{String,AbstractArray}(String(name) => array for (name, array) in zip(names, arrays))
    return Flux.testmode!(build(String(spec), params))
end

bridge_outputs(chain::Chain, X::AbstractArray) = outputs(chain, Array(X))

bridge_input_jacobian(chain::Chain, X::AbstractArray) = input_jacobian(chain, Array(X))

"the blocks of `jacobian` in the order of `parameters`, in the canonical layout"
function bridge_jacobian(chain::Chain, X::AbstractArray)
    types = [(typeof(layer), name) for layer in chain.layers for name in parameter_names(layer)]
    blocks = jacobian(chain, Array(X))
    return [to_canonical(type, Val(name), block) for ((type, name), (_, block)) in zip(types, blocks)]
end

"J' c in the order of `parameters`, in the canonical layout, from cotangents (O, n)"
function bridge_pull(chain::Chain, X::AbstractArray, cotangents::AbstractMatrix)
    types = [(typeof(layer), name) for layer in chain.layers for name in parameter_names(layer)]
    pulled = pull(chain, Array(X), Array(cotangents))
    return [to_canonical(type, Val(name), value) for ((type, name), (_, value)) in zip(types, pulled)]
end

"<c_i, (J w)_i> (n), from a direction in the order of `parameters`, in the canonical layout with reversed axes"
function bridge_push(chain::Chain, X::AbstractArray, direction, cotangents::AbstractMatrix)
    types = [(typeof(layer), name) for layer in chain.layers for name in parameter_names(layer)]
    own = [from_canonical(type, Val(name), value) for ((type, name), value) in zip(types, direction)]
    return push(chain, Array(X), own, Array(cotangents))
end

"factors with the reduction that they were made for, so that Python holds one value"
struct Prepared{R<:Reduction}
    reduction::R
    factors::Vector{Factor}
end

"`outputs` is a name, or an output counted from 1"
function bridge_prepare(chain::Chain, X::AbstractArray, outputs, n_outputs::Integer, method::AbstractString)
    r = reduction(outputs isa Integer ? outputs : Symbol(outputs), n_outputs)
    return Prepared(r, Vector{Factor}(factors(chain, Array(X), r, Symbol(method))))
end

"""
    bridge_fill(address, dims, left, rows, right, cols)

Fill the rectangle into memory that Python owns: `dims` elements from `address` on, of the type of the factors. `rows`
and `cols` are (first, last), counted from 1.
"""
function bridge_fill(::Type{T}, address::Integer, dims, left::Prepared, rows, right::Prepared, cols) where {T}
    target = unsafe_wrap(Array, Ptr{T}(UInt(address)), Tuple(Int.(dims)))
    rectangle!(target, left.reduction, left.factors, rows[1]:rows[2], right.factors, cols[1]:cols[2])
    return nothing
end

"set the number of BLAS threads; returns the one before"
function bridge_threads(n::Integer)
    before = BLAS.get_num_threads()
    BLAS.set_num_threads(n)
    return before
end

"versions of what computes here, by name"
function bridge_versions()
    return Dict("julia" => string(VERSION), "Flux" => string(pkgversion(Flux)), "Zygote" => string(pkgversion(Zygote)),
        "NNlib" => string(pkgversion(NNlib)), "UDLBridge" => string(pkgversion(UDLBridge)))
end
