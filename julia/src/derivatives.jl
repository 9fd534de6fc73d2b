"""
    outputs(model, X)

f(X) in inference mode, (O, n) for X (D..., n).

# Errors
`ArgumentError` where there is no sample, for entries that are not real numbers, and for what [`inference`](@ref) refuses.
"""
function outputs(model, X::AbstractArray)
    chain, X = ready(model, X)
    return chain(X)
end

"sample `i` of `X`, kept as a batch of one"
sample(X::AbstractArray, i::Integer) = copy(selectdim(X, ndims(X), i:i))

"""
    jacobian(model, X) -> Vector of name => block

Derivatives of every output of every sample with respect to every parameter: blocks of size
`(size(parameter)..., O, n)` in Flux's layout, by the names of [`parameters`](@ref).

```jldoctest
julia> UDLBridge.jacobian(Chain(Dense([1.0 2.0], [0.5])), [3.0, 4.0][:, :])
2-element Vector{Pair{String, Array{Float64}}}:
 "0.weight" => [3.0 4.0;;;;]
   "0.bias" => [1.0;;;]
```

One Zygote pullback per sample, and one call of it per output (with mutable layers: one pullback per output).

# Errors
`ArgumentError` as for [`UDLBridge.outputs`](@ref), and for a chain whose outputs are not (O, n) or that mixes samples.
"""
function jacobian(model, X::AbstractArray)
    chain, X = ready(model, X)
    check_outputs(chain, X)
    return per_sample(chain, X, cotangents(Full(), chain(X)))::Vector{<:Pair{String,<:Array}}
end

"blocks (size(parameter)..., K, n) for the K cotangents of the batch, of a chain or of one layer in inference mode"
function per_sample(chain, X::AbstractArray, seeds)
    T = eltype(first(seeds))
    n = size(X, ndims(X))
    own = leaves(chain)
    # Zygote adds up the gradients of a mutable layer (BatchNorm, GroupNorm) over the calls of one pullback.
    forgetful = any(leaf -> ismutable(leaf.layer), own)
    blocks = Array{T}[Array{T}(undef, size(value(leaf))..., length(seeds), n) for leaf in own]
    for i in 1:n
        xi = sample(X, i)
        _, back = Zygote.pullback(m -> m(xi), chain)
        for (k, seed) in enumerate(seeds)
            k > 1 && forgetful && ((_, back) = Zygote.pullback(m -> m(xi), chain))
            gradient = only(back(sample(seed, i)))
            store!(blocks, own, gradient, k, i)
        end
    end
    return Pair{String,Array{T}}[leaf.name => block for (leaf, block) in zip(own, blocks)]
end

"copy one gradient of a chain's leaves into slot (k, i) of the blocks; a parameter on which nothing depends has gradient zero"
function store!(blocks, own::Vector{Leaf}, gradient, k::Integer, i::Integer)
    for (block, leaf) in zip(blocks, own)
        found = gradient_of(leaf, gradient)
        target = selectdim(selectdim(block, ndims(block), i), ndims(block) - 1, k)
        found === nothing ? fill!(target, 0) : copyto!(target, found)
    end
    return blocks
end

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
function input_jacobian(model, X::AbstractArray)
    chain, X = ready(model, X)
    check_outputs(chain, X)
    y, back = Zygote.pullback(chain, X)
    result = zeros(eltype(y), size(X)[1:(end - 1)]..., size(y, 1), size(y, 2))
    for (k, seed) in enumerate(cotangents(Full(), y))
        pulled = only(back(seed))
        pulled === nothing && continue
        copyto!(selectdim(result, ndims(result) - 1, k), pulled)
    end
    return result
end
