# What Python calls: arrays with reversed axes and a spec in, arrays with reversed axes out. No computation here.
# The names are not exported; from Julia, use `build`, `ntk`, `jacobian` and their kin.

"a chain from the spec's JSON text and two parallel lists, names and canonical arrays with reversed axes"
function bridge_build(spec::AbstractString, names, arrays)
    params = Dict{String,AbstractArray}(String(name) => array for (name, array) in zip(names, arrays))
    return Flux.testmode!(build(String(spec), params))
end

bridge_outputs(chain::Chain, X::AbstractArray) = outputs(chain, received(X))

"samples as Julia's own array, so that BLAS sees it; tokens count from 0 there and from 1 here"
received(X::AbstractArray) = Array(X)
received(X::AbstractArray{<:Integer}) = Array(X) .+ 1

bridge_input_jacobian(chain::Chain, X::AbstractArray) = input_jacobian(chain, received(X))

"the blocks of `jacobian` in the order of `parameters`, in the canonical layout"
function bridge_jacobian(chain::Chain, X::AbstractArray)
    blocks = jacobian(chain, received(X))
    return [to_canonical(type(leaf), Val(leaf.field), block) for (leaf, (_, block)) in zip(leaves(chain), blocks)]
end

"factors with the reduction that they were made for, so that Python holds one value"
struct Prepared{R<:Reduction}
    reduction::R
    factors::Vector{AnyFactor}
end

"`outputs` is a name, or an output counted from 1; `params` are the names of the parameters that count"
function bridge_prepare(chain::Chain, X::AbstractArray, outputs, n_outputs::Integer, method::AbstractString, params)
    r = reduction(outputs isa Integer ? outputs : Symbol(outputs), n_outputs)
    return Prepared(r, Vector{AnyFactor}(factors(chain, received(X), r, Symbol(method), Set{String}(String.(params)))))
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
