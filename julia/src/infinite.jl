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
of two sizes.

Source: Jacot, Gabriel, Hongler (2018); Lee et al. (2018); Novak et al. (2019).
"""
function infinite_ntk(model, X1::AbstractArray, X2::Union{Nothing,AbstractArray}=nothing; w_std::Real, b_std::Real,
    parameterization::Symbol=:ntk)
    w_std > 0 && b_std >= 0 || throw(ArgumentError("w_std = $w_std, b_std = $b_std; allowed: w_std > 0, b_std >= 0"))
    parameterization in (:ntk, :standard) ||
        throw(ArgumentError("parameterization = :$parameterization; allowed: :ntk, :standard"))
    other = X2 === nothing ? X1 : X2
    size(X1)[1:(end - 1)] == size(other)[1:(end - 1)] ||
        throw(DimensionMismatch("samples of sizes $(size(X1)) and $(size(other)); allowed: the same but for the last axis"))
    n, m = size(X1, ndims(X1)), size(other, ndims(other))
    k = behind(as_chain(model), sources(X1, other, X2 === nothing), Draws(w_std, b_std, parameterization == :standard))
    size(k.across.nngp, 1) == 1 || throw(ArgumentError("the layers do not end in a vector; add Flux.flatten"))
    return (; nngp=reshape(k.across.nngp, n, m), ntk=reshape(k.across.ntk, n, m))
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

"the kernels after a layer"
behind(layer, ::Batches, ::Draws) =
    throw(ArgumentError("a $(layer isa Function ? nameof(layer) : nameof(typeof(layer))) has no kernel at infinite width here"))
behind(chain::Chain, k::Batches, s::Draws) = foldl((k, layer) -> behind(layer, k, s), chain.layers; init=k)
behind(::Dropout, k::Batches, ::Draws) = k
behind(::typeof(identity), k::Batches, ::Draws) = k
behind(a::Activation, k::Batches, s::Draws) = activated(a.f, k)
behind(f::Function, k::Batches, ::Draws) =
    f in values(ACTIVATIONS) ? activated(f, k) : throw(ArgumentError("$(nameof(f)) has no kernel at infinite width here"))

function behind(d::Dense, k::Batches, s::Draws)
    isempty(k.across.space) || throw(ArgumentError("a Dense layer on samples with positions; put Flux.flatten before it"))
    return activated(d.σ, each(c -> affine(c, [ones(1, 1)], (), size(d.weight, 2), d.bias !== false, s), k))
end

function behind(c::Convolution, k::Batches, s::Draws)
    groups(c) == 1 || throw(ArgumentError("a convolution with $(groups(c)) groups has no kernel here; allowed: 1"))
    kernel = size(c.weight)[1:(end - 2)]
    seen, space = window_maps(k.across.space, kernel, c.stride, c.pad, c.dilation)
    fan_in = prod(size(c.weight)[1:(end - 1)])
    return activated(c.σ, each(x -> affine(x, seen, space, fan_in, c.bias !== false, s), k))
end

behind(::typeof(Flux.flatten), k::Batches, ::Draws) = each(k) do c
    # The weights after it are independent from position to position: only pairs of one position with itself contribute.
    own(a) = reshape([sum(a[p, p, i] for p in axes(a, 1)) / size(a, 1) for i in axes(a, 3)], 1, 1, :)
    return Covariance(own(c.nngp), own(c.ntk), ())
end

behind(::GlobalMeanPool, k::Batches, ::Draws) = each(k) do c
    mean = fill(1 / prod(c.space), 1, prod(c.space))
    return Covariance(seen_through([mean], c.nngp), seen_through([mean], c.ntk), map(_ -> 1, c.space))
end

function behind(p::MeanPool, k::Batches, ::Draws)
    seen, space = window_maps(k.across.space, p.k, p.stride, p.pad, map(_ -> 1, p.k))
    mean = sum(seen) ./ length(seen)
    return each(c -> Covariance(seen_through([mean], c.nngp), seen_through([mean], c.ntk), space), k)
end

function behind(l::SampleNorm, k::Batches, ::Draws)
    l.weight === nothing && length(l.size) == 1 && isempty(k.across.space) ||
        throw(ArgumentError("layer norm has a kernel here for vectors and without parameters alone"))
    # Over infinitely many features, a sample's mean is 0 and its mean square is its variance.
    return rescaled(k, v -> 1 ./ sqrt.(v .+ l.eps))
end

behind(s::SkipConnection, k::Batches, draws::Draws) = joined(s.connection, s.layers, k, k, draws)
behind(p::Parallel, k::Batches, draws::Draws) = joined(p.connection, p.layers[1], k, behind(p.layers[2], k, draws), draws)

function joined(connection, branch, k::Batches, beside::Batches, draws::Draws)
    connection === (+) || throw(ArgumentError("a connection by $connection has no kernel here; allowed: +"))
    ends_in_weights(branch) || throw(ArgumentError("the branch of a block must end in weights, without an activation"))
    main = behind(branch, k, draws)
    add(a, b) = Covariance(a.nngp .+ b.nngp, a.ntk .+ b.ntk, a.space)
    return Batches(add(main.first, beside.first), add(main.second, beside.second), add(main.across, beside.across), k.same)
end

ends_in_weights(chain::Chain) = ends_in_weights(last(chain.layers))
ends_in_weights(layer::Union{Dense,Convolution}) = layer.σ === identity
ends_in_weights(layer) = false

"""
    affine(k, seen, space, fan_in, has_bias, draws)

The kernels after weights that see, at each offset of their window, the positions that `seen` maps to it.
"""
function affine(k::Covariance, seen, space, fan_in, has_bias, s::Draws)
    w2, b2 = s.w^2, has_bias ? s.b^2 : 0.0
    before = seen_through(seen, k.nngp) ./ length(seen)
    nngp = w2 .* before .+ b2
    own = s.standard ? fan_in .* before .+ has_bias : nngp
    return Covariance(nngp, own .+ w2 .* seen_through(seen, k.ntk) ./ length(seen), space)
end

"sum of A K A' over the maps A, for every pair of samples"
function seen_through(maps, k::Array{Float64,3})
    result = zeros(size(first(maps), 1), size(first(maps), 1), size(k, 3))
    for i in axes(k, 3), A in maps
        result[:, :, i] .+= A * k[:, :, i] * A'
    end
    return result
end

"for each offset in a window, the matrix from positions to windows that has a one where the window sees the position there"
function window_maps(space, kernel, stride, pad, dilation)
    before, behind = length(pad) == length(space) ? (pad, pad) : (pad[1:2:end], pad[2:2:end])
    counts = @. (space + before + behind - dilation * (kernel - 1) - 1) ÷ stride + 1
    places, windows = LinearIndices(space), CartesianIndices(counts)
    maps = map(vec(collect(CartesianIndices(kernel)))) do offset
        A = zeros(length(windows), length(places))
        for (o, window) in enumerate(windows)
            at = (Tuple(window) .- 1) .* stride .- before .+ (Tuple(offset) .- 1) .* dilation .+ 1
            all(1 .<= at .<= space) && (A[o, places[at...]] = 1)
        end
        A
    end
    return maps, counts
end

"the two variances that belong to every entry: of position p of one sample and of position q of the other"
function ends(k::Covariance, which::Symbol, all::Batches)
    own(c) = [c.nngp[p, p, i] for p in axes(c.nngp, 1), i in axes(c.nngp, 3)]
    left, right = own(which === :second ? all.second : all.first), own(which === :first ? all.first : all.second)
    n = size(left, 2)
    pairs = axes(k.nngp, 3)
    i(pair) = which === :across ? mod1(pair, n) : pair
    j(pair) = which === :across ? cld(pair, n) : pair
    return ([left[p, i(pair)] for p in axes(k.nngp, 1), _ in axes(k.nngp, 2), pair in pairs],
        [right[q, j(pair)] for _ in axes(k.nngp, 1), q in axes(k.nngp, 2), pair in pairs])
end

"all kernels times a function of each of the two variances"
function rescaled(k::Batches, f)
    function one(c, which)
        d1, d2 = ends(c, which, k)
        return Covariance(c.nngp .* f(d1) .* f(d2), c.ntk .* f(d1) .* f(d2), c.space)
    end
    return exact(Batches(one(k.first, :first), one(k.second, :second), one(k.across, :across), k.same))
end

activated(::typeof(identity), k::Batches) = k
function activated(σ, k::Batches)
    function one(c, which)
        d1, d2 = ends(c, which, k)
        found = expectations.(Ref(σ), d1, d2, c.nngp)
        return Covariance(first.(found), c.ntk .* last.(found), c.space)
    end
    return exact(Batches(one(k.first, :first), one(k.second, :second), one(k.across, :across), k.same))
end

"""
    expectations(σ, d1, d2, k) -> (E[σ(u) σ(v)], E[σ'(u) σ'(v)])

Over normal u and v of variances `d1` and `d2` and covariance `k`.
"""
expectations(::typeof(NNlib.relu), d1, d2, k) = bent(0.0, 1.0, d1, d2, k)
expectations(::typeof(NNlib.leakyrelu), d1, d2, k) = bent(0.01, 1.0, d1, d2, k)
expectations(::typeof(abs), d1, d2, k) = bent(-1.0, 1.0, d1, d2, k)
expectations(::typeof(NNlib.elu), d1, d2, k) = halves(1.0, 1.0, d1, d2, k)
expectations(::typeof(NNlib.selu), d1, d2, k) = halves(NNlib.selu_λ, NNlib.selu_α, d1, d2, k)
expectations(σ, d1, d2, k) = smooth(σ, d1, d2, k)

"two lines that meet at 0, of slopes a below and b above: arc-cosine kernels (Cho and Saul, 2009)"
function bent(a, b, d1, d2, k)
    size = sqrt(d1) * sqrt(d2)
    d1 == d2 && (size = d1)
    iszero(size) && return (0.0, (a^2 + b^2) / 2 - (b - a)^2 / 4)
    angle = atan(sqrt(max((size - k) * (size + k), 0.0)), k)
    up = (size * sin(angle) + (π - angle) * k) / 2π  # both above 0, and both below
    crossed = (size * sin(angle) - angle * k) / 2π  # one above, the other below
    return ((a^2 + b^2) * up - 2a * b * crossed, ((a^2 + b^2) * (π - angle) + 2a * b * angle) / 2π)
end

"""
    smooth(σ, d1, d2, k)

The trapezoidal rule over both variables, which converges faster than any power for functions that are analytic near the real
line. Its step follows the poles of `tanh` and of the logistic function, which come nearer as variances grow.
"""
function smooth(σ, d1, d2, k)
    s1, s2 = sqrt(d1), sqrt(d2)
    ρ = iszero(s1 * s2) ? 0.0 : clamp(k / (s1 * s2), -1.0, 1.0)
    d1 == d2 == k && (ρ = 1.0)
    rest = sqrt((1 - ρ) * (1 + ρ))
    h = 0.25 / max(1.0, s1, s2)
    nodes = -9.0:h:9.0
    weights = @. exp(-nodes^2 / 2) * h / sqrt(2π)
    both(z) = (σ(z), ForwardDiff.derivative(σ, z))
    value = slope = 0.0
    for (z, w) in zip(nodes, weights)
        f, g = both(s1 * z)
        if iszero(rest)
            fv, gv = both(s2 * ρ * z)
        else
            fv = gv = 0.0
            for (y, wy) in zip(nodes, weights)
                a, b = both(s2 * (ρ * z + rest * y))
                fv += wy * a
                gv += wy * b
            end
        end
        value += w * f * fv
        slope += w * g * gv
    end
    return (value, slope)
end

"""
    halves(λ, α, d1, d2, k)

λ z above 0 and λ α (exp(z) - 1) below. Given u, the expectation over v has a closed form; that over u is taken on either side
of 0, on panels that shrink towards 0, where the inner expectation bends sharply if u and v are nearly equal.
"""
function halves(λ, α, d1, d2, k)
    (iszero(d1) || iszero(d2)) && return (0.0, λ^2 * edge(α, d1) * edge(α, d2))
    s1, s2 = sqrt(d1), sqrt(d2)
    ρ = d1 == d2 == k ? 1.0 : clamp(k / (s1 * s2), -1.0, 1.0)
    rest = s2 * sqrt((1 - ρ) * (1 + ρ))
    value = slope = 0.0
    for (z, w) in half_line(), side in (-1, 1)
        u = side * s1 * z
        f, g = side > 0 ? (u, 1.0) : (α * expm1(u), α * exp(u))
        fv, gv = expected_half(α, s2 * ρ * side * z, rest)
        value += w * f * fv
        slope += w * g * gv
    end
    return (λ^2 * value, λ^2 * slope)
end

"the mean slope over a normal variable of variance d; for d = 0 both sides count equally"
edge(α, d) = iszero(d) ? (1 + α) / 2 : last(expected_half(α, 0.0, sqrt(d)))

"E[h(v)] and E[h'(v)] of v normal with mean m and deviation s, for h(z) = z above 0 and α (exp(z) - 1) below"
function expected_half(α, m, s)
    if iszero(s)
        return m > 0 ? (m, 1.0) : m < 0 ? (α * expm1(m), α * exp(m)) : (0.0, (1 + α) / 2)
    end
    above = normal_below(m / s)
    tilted = exp(m + s^2 / 2) * normal_below(-(m + s^2) / s)
    line = m * above + s * exp(-(m / s)^2 / 2) / sqrt(2π)
    return (line + α * (tilted - normal_below(-m / s)), above + α * tilted)
end

normal_below(z) = erfc(-z / sqrt(2)) / 2

"nodes and weights, times the normal density, on the positive half of the line: Gauss-Legendre on panels"
function half_line()
    edges = [0.0; 2.0 .^ (-40:0); 1.5:0.5:9.0]
    x, w = gauss_legendre(16)
    found = Tuple{Float64,Float64}[]
    for (a, b) in zip(edges[1:(end - 1)], edges[2:end]), (t, v) in zip(x, w)
        z = (a + b) / 2 + (b - a) / 2 * t
        push!(found, (z, v * (b - a) / 2 * exp(-z^2 / 2) / sqrt(2π)))
    end
    return found
end

"nodes and weights on [-1, 1] from the eigenvalues of the Jacobi matrix (Golub and Welsch, 1969)"
function gauss_legendre(n::Integer)
    values, vectors = eigen(SymTridiagonal(zeros(n), [i / sqrt(4i^2 - 1) for i in 1:(n - 1)]))
    return values, 2 .* vectors[1, :] .^ 2
end

"`infinite_ntk` of a chain for samples with reversed axes, as two arrays"
function bridge_infinite(chain::Chain, X1, X2, w_std, b_std, parameterization)
    other = X2 === nothing ? nothing : received(X2)
    k = infinite_ntk(chain, received(X1), other; w_std, b_std, parameterization=Symbol(parameterization))
    return k.nngp, k.ntk
end
