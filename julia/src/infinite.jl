# Kernels of infinitely wide networks: NNGP, the covariance of outputs over random weights, and NTK. How a layer
# acts on covariances is written as matrices over positions, and expectations over activations are quadrature wherever the
# integrand is smooth: deliberately another method than the Python side's, so that each checks the other.

"""
    Covariance

Kernels of pairs of samples: `nngp` and `ntk` (p, q, pairs), the covariance of position p of one sample with position q of
the other; a vector has one position. `space` are the lengths of the axes of positions.
"""
struct Covariance
    nngp::Array{Float64,3}
    ntk::Array{Float64,3}
    space::Dims
end

"""
    Batches

Covariances of each sample with itself, (p, q, n) and (p, q, m), and of all pairs, (p, q, n m); `same` says that both batches
are the same.
"""
struct Batches
    first::Covariance
    second::Covariance
    across::Covariance
    same::Bool
end

"How weights are drawn: standard deviations, times sqrt(fan_in) for weights; and whether the parameterization is standard."
struct Draws
    w::Float64
    b::Float64
    standard::Bool
end

"""
    infinite_ntk(model, X1, X2 = X1; w_std, b_std, parameterization = :ntk) -> (; nngp, ntk)

The kernels (n, m) of one output of a network whose layers are infinitely wide, in Float64. The weights of the model play no
part, and in the parameterization `:ntk` neither do its widths; `:standard` uses the widths of the model.

Layers: `Dense`, `Conv` and `CrossCor` without groups, activations, `Flux.flatten`, `MeanPool`, `GlobalMeanPool`,
`SkipConnection` and `Parallel` with `+` whose branch ends in weights, layer norms of vectors (without parameters), `Dropout`.

- `X1`, `X2`: samples (D..., n), images as W x H x C x N.
- `w_std`, `b_std`: standard deviations of weights, times sqrt(fan_in), and of biases.

# Errors
`ArgumentError` for a layer that has no kernel at infinite width, and for impossible settings; `DimensionMismatch` for samples
of two sizes; [`UDLBridge.NumericalError`](@ref) for a kernel with entries that are not finite.

Source: Jacot, Gabriel, Hongler (2018); Lee et al. (2018); Novak et al. (2019).
"""
function infinite_ntk(@nospecialize(model), X1::AbstractArray, X2::Union{Nothing,AbstractArray}=nothing; w_std::Real, b_std::Real,
    parameterization::Symbol=:ntk)
    k = infinite_kernels(model, X1, X2; w_std, b_std, parameterization)
    return (; nngp=finite(k.nngp, "nngp"), ntk=finite(k.ntk, "ntk"))
end

"the same, whether finite or not: Python looks for itself"
function infinite_kernels(@nospecialize(model), X1, X2; w_std, b_std, parameterization)
    w_std > 0 && b_std >= 0 || throw(ArgumentError("w_std = $w_std, b_std = $b_std; allowed: w_std > 0, b_std >= 0"))
    parameterization in (:ntk, :standard) ||
        throw(ArgumentError("parameterization = :$parameterization; allowed: :ntk, :standard"))
    other = X2 === nothing ? X1 : X2
    size(X1)[1:(end - 1)] == size(other)[1:(end - 1)] ||
        throw(DimensionMismatch("samples of sizes $(size(X1)) and $(size(other)); allowed: the same but for the last axis"))
    n, m = size(X1, ndims(X1)), size(other, ndims(other))
    k = propagated(as_chain(model), sources(X1, other, X2 === nothing), Draws(w_std, b_std, parameterization == :standard))
    size(k.across.nngp, 1) == 1 || throw(ArgumentError("the layers do not end in a vector; add Flux.flatten"))
    return (; nngp=reshape(k.across.nngp, n, m)::Matrix{Float64}, ntk=reshape(k.across.ntk, n, m)::Matrix{Float64})
end

"covariances of the samples themselves: products over channels, divided by their number"
function sources(X1, X2, same)
    n, m = size(X1, ndims(X1)), size(X2, ndims(X2))
    space = size(X1)[1:(end - 2)]
    channels = size(X1, ndims(X1) - 1)
    A, B = (reshape(Float64.(X), prod(space; init=1), channels, :) for X in (X1, X2))
    product(a, b) = a * b' ./ channels
    stack(pairs) = reshape(reduce(hcat, vec.(pairs)), size(A, 1), size(A, 1), :)
    covariance(k) = Covariance(k, zeros(size(k)), space)
    first = covariance(stack([product(A[:, :, i], A[:, :, i]) for i in 1:n]))
    second = covariance(stack([product(B[:, :, j], B[:, :, j]) for j in 1:m]))
    across = covariance(stack([product(A[:, :, i], B[:, :, j]) for i in 1:n, j in 1:m]))
    return exact(Batches(first, second, across, same))
end

"give the pair of a sample with itself exactly its own covariance: angles are roots of differences, which magnify rounding"
function exact(k::Batches)
    k.same || return k
    n = size(k.first.nngp, 3)
    for i in 1:n
        k.across.nngp[:, :, i + (i - 1) * n] .= k.first.nngp[:, :, i]
    end
    return k
end

each(f, k::Batches) = exact(Batches(f(k.first), f(k.second), f(k.across), k.same))

"`infinite_ntk` of a chain for samples with reversed axes, as two arrays"
function bridge_infinite(chain::Chain, X1, X2, w_std, b_std, parameterization)
    other = X2 === nothing ? nothing : received(X2)
    k = infinite_kernels(chain, received(X1), other; w_std, b_std, parameterization=Symbol(parameterization))
    return k.nngp, k.ntk
end
