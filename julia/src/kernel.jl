"""
    ntk(model, X, X2 = nothing; outputs = :trace, method = :structured, params, threads, adtype)

The empirical neural tangent kernel of a Flux chain, or of a single layer, in inference mode,
`Theta[i, j, a, b] = sum_p (d f_a(x_i) / d theta_p) (d f_b(x_j) / d theta_p)`, reduced over outputs.

- `X` (D..., n) and `X2` (D..., m): samples last. `X2 = nothing` means `X`.
- `outputs`: a number from 1 to O for one output, `:trace` (default), `:mean` (trace / O), `:sum`, all (n, m);
  `:diagonal` (n, m, O), the kernel of each output, or a vector or range of K numbers, (n, m, K), for some of them in that
  order, of which alone the derivatives are taken; `:full` (n, m, O, O).
- `method`: `:structured` never forms the Jacobian: each layer multiplies Gram matrices of its inputs and errors, or its
  per-sample gradients, whichever costs less; `:plain` multiplies per-sample gradients.
- `adtype`: what differentiates for the plain method, which is then the default: `AutoZygote()`, as without it, or
  `AutoForwardDiff()`, of ADTypes; any other that DifferentiationInterface knows where that is loaded, of which Mooncake and finite
  differences are tested. They see the whole model as a function of all its parameters, so it is compiled for each network.
- `params`: names of the [`parameters`](@ref) that the kernel sums over; all of them by default.
- `threads`: how many threads BLAS uses for it, here and nowhere else. By default as many as `BLAS.set_num_threads` or the
  environment say, and this package changes nothing: Julia's own start is half of the machine's logical cores, which are its
  physical ones on most machines. Where Python starts Julia, BLAS gets all cores that nobody spoke for.

The network may be any callable whose parameters Flux finds (`Flux.trainables`). A layer that this package has no rule for
adds its share by per-sample gradients from Zygote. Parameters that are used several times, also as `W` and `W'`, count once, with
the gradients of all uses summed. BatchNorm uses its statistics, whether the chain is in test mode or in the automatic one.
Of a model of Lux it is `ntk(model, ps, st, X, X2 = nothing; ...)`: see [`UDLBridge.network`](@ref).

# Errors
`ArgumentError` for outputs, a method or parameters that do not exist, where there are no samples, for samples of two sizes,
for a chain whose outputs are not (O, n) or that mixes samples, and for what [`inference`](@ref) refuses;
[`UDLBridge.NumericalError`](@ref) for a kernel with entries that are not finite.

# Examples

```jldoctest
julia> chain = Chain(Dense([1.0 2.0; 3.0 4.0], [0.0, 1.0]), Dense([1.0 -1.0], [0.5]));

julia> ntk(chain, [1.0 0.0; 0.0 1.0]; outputs=1)
2×2 Matrix{Float64}:
 22.0  25.0
 25.0  34.0

julia> ntk(chain, [1.0 0.0; 0.0 1.0]; params=["1.bias"])
2×2 Matrix{Float64}:
 1.0  1.0
 1.0  1.0
```

Source: Jacot, Gabriel, Hongler (2018); Novak, Sohl-Dickstein, Schoenholz (2022) for the structured form.
"""
function ntk(model, X::AbstractArray, X2=nothing; outputs=:trace, method=nothing, params=nothing,
    threads::Union{Nothing,Integer}=nothing, adtype=nothing)
    return kernel(model, X, X2, outputs, method, params, threads, adtype)::kernel_type(model, outputs)
end

"the type of a kernel, as far as it is known without computing it"
@inline kernel_type(model, outputs::AbstractVector) = result(model, Val(3))
@inline function kernel_type(model, outputs) # a method of its own for vectors: another condition here is not inferred
    outputs === :full && return result(model, Val(4))
    outputs === :diagonal && return result(model, Val(3))
    return result(model, Val(2))
end

function kernel(@nospecialize(model), @nospecialize(X), @nospecialize(X2), @nospecialize(outputs), @nospecialize(method),
    @nospecialize(params), threads, @nospecialize(adtype))
    threads === nothing || return with_threads(() -> kernel(model, X, X2, outputs, method, params, nothing, adtype), threads)
    chain, X = ready(model, X)
    names = something(params, first.(parameters(chain)))
    y = check_outputs(chain, X)
    r = reduction(outputs, size(y, 1))
    method = something(method, adtype === nothing ? :structured : :plain)
    left = factors(chain, X, r, method, names, adtype)
    # What follows is compiled for the type of the numbers and the reduction, and these are known from here on.
    X2 === nothing && return finite(kernel_array(eltype(y), r, size(y, 1), left, size(X, ndims(X))))
    size(X2)[1:(end - 1)] == size(X)[1:(end - 1)] || throw(ArgumentError("X has samples of size \
        $(size(X)[1:(end - 1)]), X2 of size $(size(X2)[1:(end - 1)]); allowed: the same, with samples last"))
    right = factors(chain, X2, r, method, names, adtype)
    return finite(kernel_array(eltype(y), r, size(y, 1), left, size(X, ndims(X)), right, size(X2, ndims(X2))))
end

"call `f` while BLAS has that many threads"
function with_threads(f, threads::Integer)
    threads >= 1 || throw(ArgumentError("threads = $threads; allowed: 1 or more"))
    before = BLAS.get_num_threads()
    BLAS.set_num_threads(threads)
    try
        return f()
    finally
        BLAS.set_num_threads(before)
    end
end

"the kernel (n, m, trailing...) of two sets of samples, for O outputs, from their factors"
function kernel_array(::Type{T}, r::Reduction, O::Integer, left, n::Integer, right, m::Integer) where {T}
    isempty(left) && return zeros(T, n, m, trailing(r, O)...)
    K = Array{T}(undef, n, m, trailing(r, O)...)
    lead, N = map(Base.OneTo, trailing(r, O)), ndims(K)
    each_tile(T, trailing(r, O), r, left, 1:n, right, 1:m) do tile, i, j
        permutedims!(view(K, i, j, lead...), tile, ntuple(k -> N + 1 - k, N))
    end
    return K
end

"the same of one set of samples: each pair is computed once, and the kernel is exactly symmetric"
function kernel_array(::Type{T}, r::Reduction, O::Integer, left, n::Integer) where {T}
    isempty(left) && return zeros(T, n, n, trailing(r, O)...)
    K = Array{T}(undef, n, n, trailing(r, O)...)
    lead, N = map(Base.OneTo, trailing(r, O)), ndims(K)
    each_tile(T, trailing(r, O), r, left, 1:n, left, 1:n; lower=true) do tile, i, j
        i == j && mirror!(tile)
        permutedims!(view(K, i, j, lead...), tile, ntuple(k -> N + 1 - k, N))
        i == j || permutedims!(view(K, j, i, lead...), tile, ntuple(k -> k > 2 ? k - 2 : N - 2 + k, N))
    end
    return K
end

"""
    factors(chain, X, reduction, method, params, adtype) -> Vector{Summand}

What a kernel needs of the samples `X`: one forward pass and K backward passes for `:structured`, per-sample gradients
for `:plain`. `params` are the names of the parameters that count. `adtype` is for `:plain` alone.
"""
function factors(@nospecialize(model), X::AbstractArray, r::Reduction, method, params=first.(parameters(model)), adtype=nothing)
    chain, X = ready(model, X)
    check_names(chain, params)
    method in (:structured, :plain) ||
        throw(ArgumentError("method = $(repr(method)); allowed: :structured, :plain"))
    check_outputs(chain, X)
    method === :plain && return plain_factors(chain, X, r, params, adtype)
    adtype === nothing || throw(ArgumentError("adtype = $(repr(adtype)) with method = :structured, which knows the derivatives of \
        each layer; allowed: method = :plain"))
    return structured_factors(chain, X, r, params)
end

"per-sample gradients, from Zygote or what `adtype` says, of the parameters in `names`"
function plain_factors(@nospecialize(chain::Chain), X::AbstractArray, r::Reduction, names, adtype=nothing)
    seeds = cotangents(r, by_layer(chain, X))
    return Summand[
        Summand([name], Factor(nothing, reshape(block, :, length(seeds), size(X, ndims(X))))) for
        (name, block) in per_sample_by(adtype, chain, X, seeds) if name in names
    ]
end
