"""
    outputs(model, X)

f(X) in inference mode, (O, n) for X (D..., n).

# Errors
`ArgumentError` where there is no sample, for entries that are not real numbers, and for what [`inference`](@ref) refuses.
"""
outputs(@nospecialize(model), X::AbstractArray) = by_layer(ready(model, X)...)

"sample `i` of `X`, kept as a batch of one"
sample(X::AbstractArray, i::Integer) = copy(selectdim(X, ndims(X), i:i))

"""
    jacobian(model, X; adtype) -> Vector of name => block

Derivatives of every output of every sample with respect to every parameter: blocks of size
`(size(parameter)..., O, n)` in Flux's layout, by the names of [`parameters`](@ref).

```jldoctest
julia> UDLBridge.jacobian(Chain(Dense([1.0 2.0], [0.5])), [3.0, 4.0][:, :])
2-element Vector{Pair{String, Array{Float64}}}:
 "0.weight" => [3.0 4.0;;;;]
   "0.bias" => [1.0;;;]
```

One Zygote pullback per sample, and one call of it per output (with mutable layers: one pullback per output); or what `adtype`
says, as for [`ntk`](@ref).

# Errors
`ArgumentError` as for [`UDLBridge.outputs`](@ref), and for a chain whose outputs are not (O, n) or that mixes samples.
"""
jacobian(model, X::AbstractArray; adtype=nothing) = blocks(model, X, adtype)::result_blocks(model)

@generated function result_blocks(::M) where {M}
    T = numbers(M)
    return T isa DataType && isconcretetype(T) ? Vector{Pair{String,Array{T}}} : Vector{<:Pair{String,<:Array}}
end

"the [`jacobian`](@ref), behind a function barrier"
function blocks(@nospecialize(model), @nospecialize(X), @nospecialize(adtype))
    chain, X = ready(model, X)
    check_outputs(chain, X)
    found = per_sample_by(adtype, chain, X, cotangents(Full(), by_layer(chain, X)))
    isempty(found) && return found
    # Of one type, whatever the axes of a model's parameters are.
    return Pair{String,Array{eltype(last(first(found)))}}[name => block for (name, block) in found]
end

"blocks (size(parameter)..., K, n) for the K cotangents of the batch, of a chain or of one layer in inference mode"
function per_sample(@nospecialize(network), X::AbstractArray, seeds, own::Vector{Parameter}=trained(network))
    T, n = eltype(first(seeds)), size(X, ndims(X))
    blocks = Array{T}[Array{T}(undef, size(value(p.leaf))..., length(seeds), n) for p in own]
    see = Gradients()
    for i in 1:n
        _, network_back = observed_pullback(network, sample(X, i), see)
        for (k, seed) in enumerate(seeds)
            found = gradients!(see, network_back, sample(seed, i), own)
            foreach((block, gradient) -> store!(block, gradient, k, i), blocks, found)
        end
    end
    return Pair{String,Array{T}}[p.leaf.name => block for (p, block) in zip(own, blocks)]
end

"copy a gradient into slot (k, i) of its block; a parameter on which nothing depends has gradient zero"
store!(block::Array, gradient, k::Integer, i::Integer) = copyto!(slot(block, k, i), gradient)
store!(block::Array, ::Nothing, k::Integer, i::Integer) = fill!(slot(block, k, i), 0)

slot(block::Array{T,N}, k, i) where {T,N} = view(block, ntuple(_ -> :, Val(N - 2))..., k, i)

"""
    input_jacobian(model, X)

Derivatives of every output with respect to the sample that it comes from, `(D..., O, n)`, in the type of the model's numbers,
whatever that of `X` is.

The samples of a batch do not affect each other in inference mode, so one pullback of the whole batch serves all of them.

# Errors
`ArgumentError` as for [`UDLBridge.jacobian`](@ref).

# Examples

```jldoctest
julia> input_jacobian(Dense([1.0 2.0; 3.0 4.0]), [1, 1][:, :])
2×2×1 Array{Float64, 3}:
[:, :, 1] =
 1.0  3.0
 2.0  4.0
```
"""
function input_jacobian(model, X::AbstractArray{<:Any,N}) where {N}
    return input_derivatives(model, X)::result(model, Val(N + 1))
end

"the [`input_jacobian`](@ref), behind a function barrier"
function input_derivatives(@nospecialize(model), @nospecialize(X))
    chain, X = ready(model, X)
    check_outputs(chain, X)
    y, chain_back = observed_pullback(chain, X, Inputs())
    result = zeros(eltype(y), size(X)[1:(end - 1)]..., size(y, 1), size(y, 2))
    for (k, seed) in enumerate(cotangents(Full(), y))
        pulled = chain_back(seed)
        pulled === nothing && continue
        copyto!(selectdim(result, ndims(result) - 1, k), pulled)
    end
    return result
end
